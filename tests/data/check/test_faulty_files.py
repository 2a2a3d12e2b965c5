# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Faulty files, images and folders, and the one line that ``kdps data check`` says about each."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scipy.io import loadmat, savemat

from kdps.cli.main import main
from kdps.data.datasets.cuhk_sysu import TRAIN_TEST
from kdps.utils.testing_faults import Fault, assert_one_error, lines_of
from kdps.utils.testing_layouts import TinyCuhkSysu, TinyMOT, TinyPRW, tiny_json


def truncate(name: str, keep: float = 0.5) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: int(keep * len(content))])

    return apply


def rename_variable(name: str, old: str, new: str) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        savemat(root / name, {new: loadmat(root / name)[old]})

    return apply


def rename_field(name: str, variable: str, old: str, new: str) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        array = loadmat(root / name)[variable]
        fields = [new if field == old else field for field in array.dtype.names]
        array.dtype.names = fields
        savemat(root / name, {variable: array})

    return apply


def mix(root: Path) -> None:
    TinyPRW().write(root.parent / "prw")
    shutil.copytree(root.parent / "prw", root, dirs_exist_ok=True)


FAULTS = [
    Fault(
        "truncated Images.mat",
        TinyCuhkSysu,
        r"ROOT/annotation/Images\.mat is truncated or no MATLAB file \(.+\)",
        after=truncate("annotation/Images.mat"),
    ),
    Fault(
        "truncated annotation of a frame",
        TinyPRW,
        r"ROOT/annotations/c1s1_000011\.jpg\.mat is truncated or no MATLAB file \(.+\)",
        after=truncate("annotations/c1s1_000011.jpg.mat"),
    ),
    Fault(
        "wrong variable in pool.mat",
        TinyCuhkSysu,
        r"ROOT/annotation/pool\.mat has no variable 'pool'; it holds gallery",
        after=rename_variable("annotation/pool.mat", "pool", "gallery"),
    ),
    Fault(
        "wrong variable in an annotation",
        TinyPRW,
        r"ROOT/annotations/c2s1_000001\.jpg\.mat has no variable 'box_new' or 'anno_file' or "
        r"'anno_previous'; it holds boxes",
        after=rename_variable("annotations/c2s1_000001.jpg.mat", "box_new", "boxes"),
    ),
    Fault(
        "wrong field in Images.mat",
        TinyCuhkSysu,
        r"ROOT/annotation/Images\.mat has no field 'imname'",
        after=rename_field("annotation/Images.mat", "Img", "imname", "name"),
    ),
    Fault(
        "no Train.mat",
        TinyCuhkSysu,
        r"cannot read ROOT/annotation/test/train_test/Train\.mat: No such file or directory",
        after=lambda root: (root / TRAIN_TEST / "Train.mat").unlink(),
    ),
    Fault(
        "no lists of queries",
        TinyCuhkSysu,
        r"ROOT/annotation/test/train_test has no TestG<size>\.mat, the lists of queries .+",
        after=lambda root: [path.unlink() for path in (root / TRAIN_TEST).glob("TestG*")],
    ),
    Fault(
        "an annotation is missing",
        TinyPRW,
        r"cannot read ROOT/annotations/c1s1_000002\.jpg\.mat: No such file or directory",
        after=lambda root: (root / "annotations/c1s1_000002.jpg.mat").unlink(),
    ),
    Fault(
        "missing image",
        TinyCuhkSysu,
        r"train: image ROOT/Image/SSM/s2\.jpg does not exist",
        after=lambda root: (root / "Image/SSM/s2.jpg").unlink(),
    ),
    Fault(
        "unreadable image",
        TinyPRW,
        r"test: image ROOT/frames/c2s1_000011\.jpg is damaged \(.+\)",
        after=lambda root: (root / "frames/c2s1_000011.jpg").write_bytes(b"no picture"),
    ),
    Fault(
        "truncated image",
        TinyPRW,
        r"test: image ROOT/frames/c2s1_000011\.jpg is damaged \(image file is truncated.+\)",
        after=truncate("frames/c2s1_000011.jpg", 0.9),
        options=("--decode",),
    ),
    Fault(
        "image of another size",
        tiny_json,
        r"test: image .+/3\.jpg is 160x120, its record says 160x121",
        before=lambda content: content["images"][2].update(height=121),
    ),
    Fault(
        "duplicate image name in the pool",
        TinyCuhkSysu,
        r"ROOT/annotation/pool\.mat lists image 's7\.jpg' 2 times",
        before=lambda tiny: tiny.pool.append("s7.jpg"),
    ),
    Fault(
        "duplicate frame",
        TinyPRW,
        r"ROOT/frame_train\.mat lists image 'c1s1_000002' 2 times",
        before=lambda tiny: tiny.train.append("c1s1_000002"),
    ),
    Fault(
        "pool image without boxes in Images.mat",
        TinyCuhkSysu,
        r"ROOT/annotation/pool\.mat names image 's99\.jpg', which Images\.mat does not list",
        before=lambda tiny: tiny.pool.append("s99.jpg"),
    ),
    Fault(
        "frame name without camera",
        TinyPRW,
        r"ROOT/frame_test\.mat: frame 'frame_000011' does not begin with c<camera>s<sequence>",
        before=lambda tiny: tiny.test.append("frame_000011"),
    ),
    Fault(
        "empty test split",
        TinyPRW,
        r"ROOT/frame_test\.mat lists no images",
        before=lambda tiny: tiny.test.clear(),
    ),
    Fault(
        "empty training split",
        TinyPRW,
        r"ROOT/frame_train\.mat lists no images",
        before=lambda tiny: tiny.train.clear(),
    ),
    Fault(
        "no queries",
        TinyPRW,
        r"ROOT/query_info\.txt lists no queries",
        before=lambda tiny: tiny.queries.clear(),
    ),
    Fault(
        "wrong root: another layout",
        TinyPRW,
        r"ROOT is no CUHK-SYSU set: ROOT/annotation does not exist",
        options=("--format", "cuhk-sysu"),
    ),
    Fault(
        "wrong root: no layout",
        TinyPRW,
        r"ROOT has none of the known layouts \(cuhk-sysu, prw, mot, coco\)",
        after=lambda root: [
            shutil.rmtree(root / "annotations"),
            *(path.unlink() for path in root.glob("*.*")),
        ],
    ),
    Fault(
        "wrong root: empty",
        TinyPRW,
        "folder ROOT is empty",
        after=lambda root: [shutil.rmtree(root), root.mkdir()],
    ),
    Fault("wrong root: nothing there", TinyPRW, "folder ROOT does not exist", after=shutil.rmtree),
    Fault(
        "mixed layouts",
        TinyCuhkSysu,
        r"ROOT mixes layouts: cuhk-sysu \(annotation/Images\.mat\) and prw \(frame_train\.mat\); "
        "give each set a folder of its own",
        after=mix,
    ),
    Fault(
        "mixed layouts where one is asked for",
        TinyCuhkSysu,
        r"ROOT mixes layouts: .+",
        after=mix,
        options=("--format", "cuhk-sysu"),
    ),
    Fault(
        "a frame of the annotation has no image",
        TinyMOT,
        r"ROOT/cam-b/gt/gt\.txt: frame 7 has no image in ROOT/cam-b/img1",
        after=lambda root: (root / "cam-b/img1/000007.jpg").unlink(),
    ),
    Fault(
        "truncated JSON",
        tiny_json,
        r"ROOT is truncated or no JSON \(.+\)",
        after=lambda path: path.write_text(path.read_text()[:-20]),
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_each_fault_gives_one_line(fault, tmp_path, capsys):
    assert_one_error(fault, tmp_path, capsys)


@pytest.mark.parametrize("make", [TinyCuhkSysu, TinyPRW, tiny_json], ids=lambda m: m.__name__)
def test_sound_sets_pass(make, tmp_path, capsys):
    root = Fault("none", make, "").write(tmp_path)
    assert main(["data", "check", "--root", str(root), "--decode"]) == 0
    assert "errors: 0, warnings: 0, " in capsys.readouterr().out


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Root may read everything, so be somebody else meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def two_cameras() -> TinyMOT:
    # At this rate even the few frames lie far enough apart to be searched.
    return TinyMOT(frame_rate=0.2)


def one_camera() -> TinyMOT:
    tiny = two_cameras()
    del tiny.rows["cam-b"]
    return tiny


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX permissions")
@pytest.mark.parametrize(
    ("make", "name", "mode", "line"),
    [
        (TinyPRW, "", 0, r"cannot read ROOT: Permission denied"),
        (TinyPRW, "", 0o444, r"cannot read ROOT: Permission denied"),
        (TinyPRW, "annotations", 0, r"cannot read ROOT/annotations: Permission denied"),
        (TinyPRW, "annotations", 0o444, r"cannot read ROOT/annotations: Permission denied"),
        (TinyPRW, "frame_test.mat", 0, r"cannot read ROOT/frame_test\.mat: Permission denied"),
        (TinyPRW, "query_info.txt", 0, r"cannot read ROOT/query_info\.txt: Permission denied"),
        (TinyPRW, "frames/c1s1_000002.jpg", 0, r"train: no permission to read image ROOT/frames.+"),
        (TinyCuhkSysu, str(TRAIN_TEST), 0, rf"cannot read ROOT/{TRAIN_TEST}: Permission denied"),
        (two_cameras, "cam-a", 0, r"cannot read ROOT/cam-a/gt/gt\.txt: Permission denied"),
        (one_camera, "cam-a", 0, r"cannot read ROOT/cam-a: Permission denied"),
    ],
)
def test_no_permission(make, name, mode, line, capsys):
    # Not tmp_path: its parents are closed to the other user.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        root = make().write(Path(folder) / "set")
        # Also imports all there is to import: the other user may not be allowed to.
        assert main(["data", "check", "--root", str(root)]) == 0
        capsys.readouterr()
        (root / name).chmod(mode)
        try:
            with unprivileged():
                assert main(["data", "check", "--root", str(root)]) == 1
        finally:
            (root / name).chmod(0o755)
        out = capsys.readouterr().out
        errors = lines_of(out, "error")
        assert len(errors) == 1, out
        assert Fault(name, make, line).is_named_by(errors[0], root), errors[0]
