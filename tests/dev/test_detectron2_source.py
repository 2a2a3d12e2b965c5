# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import subprocess
from pathlib import Path

import detectron2_source
import pytest
from command import InstallError
from detectron2_source import cuda_environment, resolve, revision


@pytest.fixture
def compiler(monkeypatch):
    monkeypatch.setattr(detectron2_source, "_missing_compiler", lambda: None)


@pytest.fixture
def clone(tmp_path):
    """A folder that looks like Detectron2's sources."""
    folder = tmp_path / "clone"
    (folder / "detectron2" / "layers" / "csrc").mkdir(parents=True)
    (folder / "detectron2" / "layers" / "csrc" / "vision.cpp").write_text("int x;\n")
    return folder


@pytest.mark.parametrize(
    ("compiler_missing", "unreachable", "expected"),
    [
        (None, None, "git"),
        (None, "GitHub cannot be reached", "pypi"),
        ("there is no C++ compiler", None, "pypi"),
    ],
)
def test_auto_takes_git_only_if_it_can_work(
    monkeypatch, capsys, compiler_missing, unreachable, expected
):
    monkeypatch.setattr(detectron2_source, "_missing_compiler", lambda: compiler_missing)
    monkeypatch.setattr(detectron2_source, "_unreachable", lambda: unreachable)
    assert resolve("auto", cuda=False) == expected
    assert (compiler_missing or unreachable or "") in capsys.readouterr().out


def test_auto_with_cuda_does_not_fall_back_in_silence(monkeypatch, compiler):
    monkeypatch.setattr(detectron2_source, "_unreachable", lambda: "GitHub cannot be reached")
    with pytest.raises(InstallError, match=r"--cuda needs .* GitHub cannot be reached"):
        resolve("auto", cuda=True)


def test_an_unreachable_repository_is_noticed(monkeypatch, tmp_path):
    monkeypatch.setattr(detectron2_source, "REPOSITORY", str(tmp_path / "nothing"))
    assert detectron2_source._unreachable() == "GitHub cannot be reached"


def test_pypi_needs_no_compiler(monkeypatch):
    monkeypatch.setattr(detectron2_source, "_missing_compiler", lambda: "no compiler")
    assert resolve("pypi", cuda=False) == "pypi"
    with pytest.raises(InstallError, match="--source git compiles Detectron2, but no compiler"):
        resolve("git", cuda=False)


def test_folder_with_sources(compiler, clone):
    assert resolve(str(clone), cuda=False) == clone


@pytest.mark.parametrize("name", ["missing", "."])
def test_other_folders_are_refused(compiler, tmp_path, name):
    with pytest.raises(InstallError, match="nor a folder with Detectron2's sources"):
        resolve(str(tmp_path / name), cuda=False)


@pytest.fixture
def pip_calls(monkeypatch):
    """Replaces pip by one that makes an empty wheel; records its commands and variables."""
    calls = []

    def fake_pip(arguments, what, environment=None):
        calls.append((arguments[0], environment))
        if arguments[0] == "wheel":
            sources = Path(arguments[-1])
            assert (sources / "detectron2/layers/csrc/vision.cpp").exists()
            (sources / "build").mkdir()
            (Path(arguments[arguments.index("--wheel-dir") + 1]) / "detectron2.whl").touch()
        if arguments[0] == "install":
            assert Path(arguments[-1]).exists()

    monkeypatch.setattr(detectron2_source, "pip", fake_pip)
    monkeypatch.setattr(detectron2_source, "installed_version", lambda name: "0.6")
    return calls


def test_building_from_a_folder_leaves_it_alone(pip_calls, clone):
    detectron2_source.install(clone, cuda=False, pins=["--constraint", "c.txt"])
    assert [name for name, _ in pip_calls] == ["wheel", "uninstall", "install"]
    assert pip_calls[0][1]["FORCE_CUDA"] == "0"
    assert pip_calls[0][1]["D2_VERSION_SUFFIX"] == "+folder"
    assert [path.name for path in clone.iterdir()] == ["detectron2"]


def test_a_failed_build_leaves_the_installed_detectron2(pip_calls, clone, monkeypatch):
    def failing_pip(arguments, what, environment=None):
        pip_calls.append((arguments[0], environment))
        raise InstallError("no")

    monkeypatch.setattr(detectron2_source, "pip", failing_pip)
    with pytest.raises(InstallError, match="no"):
        detectron2_source.install(clone, cuda=False, pins=[])
    assert [name for name, _ in pip_calls] == ["wheel"]


def test_revision_follows_commits_and_edits(clone):
    def git(*arguments):
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", clone, *identity, *arguments], check=True, capture_output=True)

    assert revision("git") is None
    assert revision(str(clone)) is None
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    first = revision(str(clone))
    assert first is not None
    assert revision(str(clone)) == first
    (clone / "detectron2/layers/csrc/vision.cpp").write_text("int y;\n")
    edited = revision(str(clone))
    git("commit", "-a", "-m", "second")
    assert len({first, edited, revision(str(clone))}) == 3


@pytest.fixture
def toolkit(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").touch()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    monkeypatch.setenv("CPATH", "/opt/include")
    return tmp_path


def test_cuda_environment_is_that_of_the_gpu_at_hand(toolkit):
    environment = cuda_environment("13.0", [9, 0])
    assert environment["FORCE_CUDA"] == "1"
    assert environment["CUDA_HOME"] == str(toolkit)
    assert environment["TORCH_CUDA_ARCH_LIST"] == "9.0"
    headers, others = environment["CPATH"].split(":")
    assert headers.endswith("site-packages/nvidia/cu13/include")
    assert others == "/opt/include"


def test_architectures_that_the_user_names_stand(toolkit, monkeypatch):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0;9.0")
    assert "TORCH_CUDA_ARCH_LIST" not in cuda_environment("13.0", None)


def test_without_gpu_the_architecture_has_to_be_named(toolkit):
    with pytest.raises(InstallError, match=r"for example TORCH_CUDA_ARCH_LIST=9.0"):
        cuda_environment("13.0", None)


def test_without_toolkit(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(detectron2_source, "TOOLKITS", str(tmp_path / "cuda"))
    with pytest.raises(InstallError, match=r"needs the CUDA 13.0 toolkit"):
        cuda_environment("13.0", [9, 0])
