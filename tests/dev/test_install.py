# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import itertools
import json
import re
import runpy
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import install
import pytest
import setuptools
from command import InstallError
from packaging.requirements import Requirement
from packaging.version import Version

VERSIONS = {
    "torch": "2.14.1",
    "torchvision": "0.29.1",
    "detectron2": "0.6",
    "operators": "no",
    "kdps": "1.0",
}


@pytest.fixture
def steps(monkeypatch):
    """Replaces what downloads and imports; records the steps that the installer takes."""
    record = SimpleNamespace(taken=[], versions=VERSIONS, fails_at=None)

    def take(name):
        record.taken.append(name)
        if name == record.fails_at:
            raise InstallError(f"could not get {name}")

    monkeypatch.setattr(install, "pip", lambda arguments, what, environment=None: take(what))
    monkeypatch.setattr(install, "installed_version", lambda name: record.versions[name])
    monkeypatch.setattr(install, "installed_versions", lambda: record.versions)
    monkeypatch.setattr(
        install.detectron2_source,
        "install",
        lambda source, cuda, pins: take(f"Detectron2 from {source}"),
    )
    return record


def run(stamp, *arguments):
    install.install(install.build_parser().parse_args(arguments), stamp)


ALL = ["pip and setuptools", "PyTorch", "Detectron2 from pypi", "kdps"]


def test_second_call_installs_nothing(steps, tmp_path, capsys):
    run(tmp_path / "stamp", "--source", "pypi")
    assert steps.taken == ALL
    run(tmp_path / "stamp", "--source", "pypi")
    assert steps.taken == ALL
    assert "Set up already" in capsys.readouterr().out


def test_broken_environment_is_installed_anew(steps, tmp_path, monkeypatch):
    run(tmp_path / "stamp", "--source", "pypi")
    answers = iter([None, VERSIONS])
    monkeypatch.setattr(install, "installed_versions", lambda: next(answers))
    run(tmp_path / "stamp", "--source", "pypi")
    assert steps.taken == ALL + ALL


def test_packages_that_cannot_be_imported_are_no_success(steps, tmp_path, monkeypatch):
    monkeypatch.setattr(install, "installed_versions", lambda: None)
    with pytest.raises(InstallError, match="cannot be imported"):
        run(tmp_path / "stamp", "--source", "pypi")
    assert "inputs" not in json.loads((tmp_path / "stamp").read_text())


def test_call_after_a_failure_does_not_build_detectron2_again(steps, tmp_path):
    steps.fails_at = "kdps"
    with pytest.raises(InstallError):
        run(tmp_path / "stamp", "--source", "pypi")
    steps.fails_at = None
    steps.taken.clear()
    run(tmp_path / "stamp", "--source", "pypi")
    assert steps.taken == ["pip and setuptools", "PyTorch", "kdps"]


def test_another_source_replaces_detectron2(steps, tmp_path, monkeypatch):
    monkeypatch.setattr(install.detectron2_source, "resolve", lambda source, cuda: source)
    run(tmp_path / "stamp", "--source", "pypi")
    run(tmp_path / "stamp", "--source", "git")
    assert "Detectron2 from git" in steps.taken


@pytest.mark.parametrize(
    ("source", "module", "name"),
    [("git", "detectron2_source", "COMMIT"), ("pypi", "detectron2_wheel", "TREE_SHA256")],
)
def test_another_pin_replaces_detectron2(steps, tmp_path, monkeypatch, source, module, name):
    monkeypatch.setattr(install.detectron2_source, "resolve", lambda source, cuda: source)
    run(tmp_path / "stamp", "--source", source)
    steps.taken.clear()
    monkeypatch.setattr(f"{module}.{name}", "newer")
    # A change of the installer's files, as the edit of a pin is one.
    monkeypatch.setattr(install, "inputs_digest", lambda settings: "newer")
    run(tmp_path / "stamp", "--source", source)
    assert f"Detectron2 from {source}" in steps.taken


def test_another_torch_builds_detectron2_again(steps, tmp_path):
    run(tmp_path / "stamp", "--source", "pypi")
    steps.versions = {**VERSIONS, "torch": "2.13.0"}
    steps.taken.clear()
    (tmp_path / "stamp").write_text(
        json.dumps({**json.loads((tmp_path / "stamp").read_text()), "inputs": "older"})
    )
    run(tmp_path / "stamp", "--source", "pypi")
    assert steps.taken == ALL


def test_keep_torch_leaves_it_and_frees_its_pins(steps, tmp_path):
    steps.versions = {**VERSIONS, "torch": "2.12.0+cu126", "torchvision": "0.27.0"}
    run(tmp_path / "stamp", "--source", "pypi", "--keep-torch")
    assert "PyTorch" not in steps.taken
    pins = (tmp_path / "kdps-constraints.txt").read_text().splitlines()
    assert "torch==2.12.0+cu126" in pins
    assert not any(pin.startswith(("torch==2.14", "nvidia-", "triton", "cuda-")) for pin in pins)
    assert any(pin.startswith("numpy==") for pin in pins)


@pytest.mark.parametrize(
    ("version", "message"),
    [("2.10.0", "torch 2.11 to 2.14 is supported"), (None, "torch is not installed")],
)
def test_keep_torch_refuses_what_cannot_be_kept(steps, version, message):
    steps.versions = {**VERSIONS, "torch": version}
    with pytest.raises(InstallError, match=message):
        install.kept_torch()


def test_inputs_change_with_options_pins_and_projects(tmp_path, monkeypatch):
    (tmp_path / "setup.py").touch()
    pins = tmp_path / "constraints.txt"
    pins.write_text("numpy==1\n")
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install, "CONSTRAINTS", pins)
    digests = [install.inputs_digest({"source": "pypi"}), install.inputs_digest({"source": "git"})]
    pins.write_text("numpy==2\n")
    digests.append(install.inputs_digest({"source": "pypi"}))
    project = tmp_path / "projects" / "New" / "new"
    project.mkdir(parents=True)
    (project / "__init__.py").touch()
    digests.append(install.inputs_digest({"source": "pypi"}))
    assert len(set(digests)) == 4
    assert install.inputs_digest({"source": "pypi"}) == digests[-1]


@pytest.mark.parametrize("version", [(3, 9, 1), (3, 13, 0)])
def test_unsupported_python_is_refused(monkeypatch, capsys, version):
    monkeypatch.setattr(sys, "version_info", version)
    assert install.main(["--source", "pypi"]) == 1
    error = capsys.readouterr().err
    assert "Python 3.10 to 3.12 is needed" in error
    assert ".".join(map(str, version)) in error


def test_cuda_cannot_come_from_pypi(capsys):
    with pytest.raises(SystemExit):
        install.main(["--source", "pypi", "--cuda"])
    assert "--cuda compiles" in capsys.readouterr().err


def test_failure_is_one_line(steps, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    steps.fails_at = "PyTorch"
    assert install.main(["--source", "pypi"]) == 1
    assert capsys.readouterr().err == "\ninstall: error: could not get PyTorch\n"


def test_a_folder_that_is_no_environment_is_not_touched(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("important")
    assert install.main(["--venv", str(tmp_path), "--source", "pypi"]) == 1
    assert "is no virtual environment" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_environment_is_made_and_mended(tmp_path, monkeypatch):
    folder = tmp_path / "venv"
    tool = tmp_path / "tool.py"
    tool.write_text("import sys; print(sys.prefix, *sys.argv[1:]); sys.exit(7)")
    monkeypatch.setattr(install, "__file__", str(tool))
    assert install.run_in_venv(folder, ["--source", "pypi"]) == 7
    (folder / "bin" / "python").unlink()
    assert install.run_in_venv(folder, []) == 7
    assert subprocess.call([folder / "bin" / "python", "-c", "import pip"]) == 0


def test_installations_wait_for_each_other(tmp_path, capsys):
    order = []

    def second():
        with install.exclusive(tmp_path / "lock"):
            order.append("second")

    with install.exclusive(tmp_path / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert "waiting" in capsys.readouterr().out


def pins():
    lines = install.CONSTRAINTS.read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


@pytest.fixture
def asked_for(monkeypatch):
    """What setup.py and the requirement files ask for."""
    given = {}
    monkeypatch.setattr(setuptools, "setup", lambda **keywords: given.update(keywords))
    runpy.run_path(str(install.ROOT / "setup.py"), run_name="__main__")
    lines = [*given["install_requires"], *itertools.chain(*given["extras_require"].values())]
    for path in install.REQUIREMENTS.glob("*.txt"):
        lines += [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return [Requirement(line) for line in lines]


def test_every_pin_is_exact():
    assert all(re.fullmatch(r"==[^*]+", str(pin.specifier)) for pin in pins())


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12"])
def test_each_supported_python_has_one_pin_for_all_that_is_asked_for(asked_for, python):
    place = {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
    }
    found = [pin for pin in pins() if pin.marker is None or pin.marker.evaluate(place)]
    versions = {pin.name: Version(str(pin.specifier).removeprefix("==")) for pin in found}
    assert len(versions) == len(found)
    assert {"torch", "yacs", "setuptools", "pytest"} <= {asked.name for asked in asked_for}
    for asked in asked_for:
        assert versions[asked.name.lower()] in asked.specifier, str(asked)
