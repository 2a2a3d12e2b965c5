# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What setup.py installs."""

import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import kdps

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def setup_file():
    spec = importlib.util.spec_from_file_location("kdps_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_package(folder):
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(f"NAME = {folder.name!r}\n")


def test_projects_are_found_with_their_subpackages(setup_file, tmp_path):
    make_package(tmp_path / "projects" / "FancyKD" / "fancy_kd")
    make_package(tmp_path / "projects" / "FancyKD" / "fancy_kd" / "losses")
    make_package(tmp_path / "projects" / "FancyKD" / "tests")
    (tmp_path / "projects" / "FancyKD" / "configs").mkdir()
    (tmp_path / "projects" / "README.md").touch()
    assert setup_file.find_projects(tmp_path) == {
        "kdps.projects.fancy_kd": "projects/FancyKD/fancy_kd",
        "kdps.projects.fancy_kd.losses": "projects/FancyKD/fancy_kd/losses",
    }


def test_no_projects(setup_file, tmp_path):
    assert setup_file.find_projects(tmp_path) == {}


def test_two_projects_of_one_name_are_refused(setup_file, tmp_path):
    make_package(tmp_path / "projects" / "A" / "same")
    make_package(tmp_path / "projects" / "B" / "same")
    with pytest.raises(RuntimeError, match="projects/B/same and projects/A/same"):
        setup_file.find_projects(tmp_path)


def test_version_is_that_of_the_package(setup_file):
    assert setup_file.read_version(ROOT) == kdps.__version__


def test_missing_version(setup_file, tmp_path):
    (tmp_path / "kdps").mkdir()
    (tmp_path / "kdps" / "__init__.py").write_text("version = '1'\n")
    with pytest.raises(RuntimeError, match="states no __version__"):
        setup_file.read_version(tmp_path)


@pytest.fixture
def copy(tmp_path):
    """What packaging reads of this repository, and one more project."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "kdps", folder / "kdps", ignore=ignored)
    make_package(folder / "projects" / "FancyKD" / "fancy_kd")
    return folder


PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
OFFLINE = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]


@pytest.mark.slow
def test_wheel_holds_package_projects_and_data_but_never_asks_for_detectron2(copy, tmp_path):
    command = [*PIP, "wheel", *OFFLINE, "--wheel-dir", tmp_path, copy]
    subprocess.run(command, check=True)
    (path,) = tmp_path.glob("kdps-*.whl")
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        info = next(name.split("/")[0] for name in names if ".dist-info/" in name)
        metadata = archive.read(f"{info}/METADATA").decode()
        scripts = archive.read(f"{info}/entry_points.txt").decode()
    assert {"kdps/projects/fancy_kd/__init__.py", "kdps/cli/main.py", "kdps/py.typed"} <= names
    assert f"{info}/licenses/LICENSE" in names
    templates = {f"kdps/report/templates/{p.name}" for p in ROOT.glob("kdps/report/templates/*")}
    assert templates <= names
    assert not any(name.startswith(("tests/", "dev/", "projects/")) for name in names)
    assert "kdps = kdps.cli.main:main" in scripts
    required = re.findall(r"^Requires-Dist: (.+)$", metadata, flags=re.MULTILINE)
    assert "torch" in {Requirement(line).name for line in required}
    # It is not on PyPI: pip would install a stranger's package of that name.
    assert "detectron2" not in {Requirement(line).name for line in required}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["compat", "lenient"])
def test_editable_installation_finds_the_projects(copy, tmp_path, mode):
    """The first is how dev/install.py installs, the other what pip does by itself."""
    target = tmp_path / "site"
    command = [*PIP, "install", *OFFLINE, "--config-settings", f"editable_mode={mode}"]
    command += ["--target", target, "--editable", copy]
    subprocess.run(command, check=True, capture_output=True)
    if mode == "compat":
        # Where users work there may be a clone of this name.
        (tmp_path / "kdps").mkdir()
        (tmp_path / "kdps" / "train_net.py").touch()
    # -S and an empty folder: neither this environment's own installation nor the working
    # directory helps.
    program = (
        "import site, sys\n"
        "sys.path.insert(0, '')\n"
        f"site.addsitedir({str(target)!r})\n"
        f"sys.path.append({sysconfig.get_path('purelib')!r})\n"
        "import kdps.projects.fancy_kd as fancy\n"
        "print(fancy.NAME, fancy.__file__)\n"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    place = copy / "projects" / "FancyKD" / "fancy_kd" / "__init__.py"
    assert result.stdout.split() == ["fancy_kd", str(place)], result.stderr
