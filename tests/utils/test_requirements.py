# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import subprocess
import sys

import pytest

from kdps.errors import KdpsError
from kdps.utils import requirements

# Run in a fresh interpreter: hide Detectron2 as if it were not installed, then import kdps.
WITHOUT_DETECTRON2 = """
import sys
finders = sys.meta_path[:]
class Skip:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "detectron2":
            return None
        for finder in finders:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                return spec
sys.meta_path[:] = [Skip]
try:
    import kdps
except ImportError as error:
    print(error)
"""


def run(program, folder=None):
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def test_import_without_detectron2_names_both_routes():
    text = run(WITHOUT_DETECTRON2)
    assert "--source git" in text
    assert "--source pypi" in text
    assert "do not" in text.replace("\n", " ")


def test_import_is_light():
    loaded = run("import kdps, sys; print(*sys.modules)").split()
    assert not {"torch", "detectron2", "cv2", "numpy"} & set(loaded)


def test_detectron2_is_there():
    requirements.require_detectron2()


def test_a_clone_in_the_working_directory_is_no_installation(tmp_path, monkeypatch):
    (tmp_path / "detectron2").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "modules", {k: v for k, v in sys.modules.items() if k != "detectron2"})
    with pytest.raises(ImportError, match="It is not on PyPI"):
        requirements.require_detectron2()


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(KdpsError, match="timm is not installed, .*: pip install timm"):
        requirements.require_timm()
