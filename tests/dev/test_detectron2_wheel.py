# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import base64
import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from importlib import metadata

import detectron2_wheel
import pytest
from detectron2_wheel import UnexpectedContentError, read_detectron2, tree_digest, write_wheel

FILES = {
    "detectron2/__init__.py": b"from detectron2.answer import ANSWER\n",
    "detectron2/answer.py": b"ANSWER = 42\n",
}


@pytest.fixture
def carrier(tmp_path, monkeypatch):
    """A wheel that carries FILES under another name, pinned as the real one is."""
    path = tmp_path / "carrier.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in FILES.items():
            renamed = content.replace(b"detectron2", b"LabGym.detectron2")
            archive.writestr(f"LabGym/{name}", renamed)
        archive.writestr("LabGym/other.py", "import LabGym.detectron2\n")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(detectron2_wheel, "CARRIER_SHA256", digest)
    monkeypatch.setattr(detectron2_wheel, "TREE_SHA256", tree_digest(FILES))
    return path


def test_tree_digest_of_one_file():
    # sha256("") = e3b0c442...; the digest is that of the line with this and the name.
    line = f"{hashlib.sha256(b'').hexdigest()}  a\n"
    assert line.startswith("e3b0c442")
    assert tree_digest({"a": b""}) == hashlib.sha256(line.encode()).hexdigest()


def test_tree_digest_does_not_depend_on_order_but_on_names_and_content():
    digest = tree_digest({"a": b"1", "b": b"2"})
    assert tree_digest({"b": b"2", "a": b"1"}) == digest
    assert tree_digest({"a": b"2", "b": b"1"}) != digest


def test_only_detectron2_is_taken_and_renamed_back(carrier):
    assert read_detectron2(carrier) == FILES


def test_another_wheel_is_refused(carrier):
    carrier.write_bytes(carrier.read_bytes() + b" ")
    with pytest.raises(UnexpectedContentError, match=r"carrier.whl is not the pinned file"):
        read_detectron2(carrier)


def test_unexpected_content_is_refused(carrier, monkeypatch):
    monkeypatch.setattr(detectron2_wheel, "TREE_SHA256", "0" * 64)
    with pytest.raises(UnexpectedContentError, match=r"carrier.whl does not carry"):
        read_detectron2(carrier)


def test_wheel_record_lists_every_member_with_its_digest(tmp_path):
    path = write_wheel(FILES, ["numpy"], "the licence", tmp_path)
    with zipfile.ZipFile(path) as archive:
        record = next(name for name in archive.namelist() if name.endswith("/RECORD"))
        rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(archive.read(record).decode()))}
        assert set(rows) == set(archive.namelist())
        for name in set(rows) - {record}:
            content = archive.read(name)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            assert rows[name] == [f"sha256={digest}", str(len(content))]


def test_wheel_is_reproducible(tmp_path):
    wheels = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        wheels.append(write_wheel(FILES, ["numpy"], "the licence", tmp_path / folder).read_bytes())
    assert wheels[0] == wheels[1]


def test_pip_installs_the_wheel_with_its_licence_and_requirements(tmp_path):
    path = write_wheel(FILES, ["numpy>=1", "yacs"], "the licence", tmp_path)
    target = tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", target, path], check=True)
    (found,) = metadata.distributions(name="detectron2", path=[str(target)])
    assert found.version == detectron2_wheel.VERSION
    assert found.requires == ["numpy>=1", "yacs"]
    assert found.read_text("licenses/LICENSE") == "the licence"
    assert (target / "detectron2" / "answer.py").read_bytes() == FILES["detectron2/answer.py"]


@pytest.mark.skipif(
    metadata.version("detectron2") != detectron2_wheel.VERSION,
    reason="Detectron2 was installed by another route",
)
def test_the_installed_detectron2_is_the_pinned_one():
    files = metadata.distribution("detectron2").files
    own = [
        file for file in files if file.parts[0] == "detectron2" and "__pycache__" not in str(file)
    ]
    assert tree_digest({str(f): f.read_binary() for f in own}) == detectron2_wheel.TREE_SHA256
