# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json

import pytest

from kdps.cli.main import main
from kdps.utils.testing_layouts import (
    TinyCuhkSysu,
    TinyMOT,
    TinyPRW,
    tiny_json,
    write_images,
    write_json,
)


@pytest.mark.parametrize("command", ["check", "show", "synth"])
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", command, "--help"])
    assert stop.value.code == 0
    assert f"kdps data {command} " in capsys.readouterr().out.split("example", 1)[1]


@pytest.mark.parametrize("command", ["check", "show"])
def test_help_tells_which_splits_are_taken(command, capsys):
    with pytest.raises(SystemExit):
        main(["data", command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: both; of a JSON file, which is one split: test)" in text


def test_check_prints_counts_and_totals(tmp_path, capsys):
    root = TinyCuhkSysu().write(tmp_path / "set")
    assert main(["data", "check", "--root", str(root)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train: 4 images, 5 boxes, 4 labelled boxes, 2 identities",
        "  note: train: not the published size: 4 images (11206), 2 identities (5532)",
        "test: 4 images, 6 boxes, 4 labelled boxes, 2 identities, 2 queries",
        "  note: test: not the published size: 4 images (6978), 2 queries (2900)",
        "errors: 0, warnings: 0, notes: 2",
    ]


def test_check_of_registered_names(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    TinyPRW().write(tmp_path / "synth" / "prw")
    assert main(["data", "check", "synth_prw_train", "synth_prw_test"]) == 0
    out = capsys.readouterr().out
    assert "synth_prw_test: 4 images, 6 boxes, 5 labelled boxes, 3 identities, 2 queries" in out
    # One set that is missing does not hide another.
    assert main(["data", "check", "synth_cuhk_train", "synth_prw_train"]) == 1
    out = capsys.readouterr().out
    assert f"error: data set 'synth_cuhk_train' needs the folder {tmp_path}" in out
    assert "synth_prw_train: 3 images" in out


def test_check_of_one_split_and_gallery(tmp_path, capsys):
    root = TinyCuhkSysu().write(tmp_path / "set")
    args = ["data", "check", "--root", str(root), "--split", "test", "--gallery-sizes"]
    assert main([*args, "50"]) == 0
    assert "train" not in capsys.readouterr().out
    assert main([*args, "51"]) == 1
    assert "has no TestG51.mat; its gallery sizes are 50, 100" in capsys.readouterr().out


def test_check_of_users_own_layouts(tmp_path, capsys):
    tiny = TinyMOT(frame_rate=0.2)
    assert main(["data", "check", "--root", str(tiny.write(tmp_path / "mot"))]) == 0
    assert "test: 16 images, 32 boxes" in capsys.readouterr().out
    path = write_json(tmp_path / "images", tiny_json()).rename(tmp_path / "people.json")
    args = ["data", "check", "--root", str(path)]
    assert main([*args, "--image-root", str(tmp_path / "images")]) == 0
    assert "test: 4 images, 5 boxes, 4 labelled boxes, 2 identities, 4 queries" in (
        capsys.readouterr().out
    )
    assert main(args) == 1
    assert f"error: test: image {tmp_path / '1.jpg'} does not exist" in capsys.readouterr().out
    assert main([*args, "--image-root", str(tmp_path / "images"), "--split", "train"]) == 0


def test_check_bounds_its_output(tmp_path, capsys):
    root = TinyPRW().write(tmp_path / "set")
    for path in (root / "frames").iterdir():
        path.unlink()
    args = ["data", "check", "--root", str(root), "--split", "test"]
    assert main([*args, "--max-lines", "1"]) == 1
    out = capsys.readouterr().out
    assert out.count("does not exist") == 1
    assert "... and 4 more lines" in out
    assert "errors: 4" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "give the names of registered sets, or --root"),
        (["prw_test", "--root", "x"], "give the names of registered sets, or --root"),
        (["prw_test", "--split", "test"], "--format, --split and --image-root go with --root"),
        (["nothing"], "unknown data set 'nothing'; known are"),
    ],
)
def test_wrong_arguments(args, message, capsys):
    assert main(["data", "check", *args]) == 1
    assert f"error: {message}" in capsys.readouterr().out
    assert main(["data", "show", *args]) == 2
    assert f"error: {message}" in capsys.readouterr().err


def test_show_writes_pictures(tmp_path, capsys):
    root = TinyMOT().write(tmp_path / "set")
    out = tmp_path / "pictures"
    args = ["data", "show", "--root", str(root), "--output", str(out), "--split", "train"]
    assert main([*args, "--num", "3"]) == 0
    assert capsys.readouterr().out == f"train: 3 pictures in {out / 'train'}\n"
    names = sorted(path.name for path in (out / "train").iterdir())
    assert names == ["000_cam-a_000001.jpg", "001_cam-b_000001.jpg", "002_cam-b_000010.jpg"]


def test_show_keeps_pictures_apart_and_in_their_folder(tmp_path):
    images = tmp_path / "images"
    (images / "b").mkdir(parents=True)
    names = ["a.png", "a.jpg", "b/a.jpg", "b_a.jpg", str(images / "c.jpg")]
    write_images(images, set(names))
    before = sorted(images.rglob("*"))
    content = {"images": [{"id": i, "file_name": name} for i, name in enumerate(names)]}
    path = tmp_path / "people.json"
    path.write_text(json.dumps(content | {"annotations": []}))
    args = ["data", "show", "--root", str(path), "--image-root", str(images), "--split", "train"]
    assert main([*args, "--output", str(tmp_path / "out")]) == 0
    written = sorted(path.name for path in (tmp_path / "out" / "train").iterdir())
    flat = "_".join((images / "c.jpg").parts[1:])
    expected = ["000_a.jpg", "001_a.jpg", "002_b_a.jpg", "003_b_a.jpg", f"004_{flat}"]
    assert written == expected
    assert sorted(images.rglob("*")) == before


def test_show_says_what_is_wrong(tmp_path, capsys):
    root = TinyPRW().write(tmp_path / "set")
    args = ["data", "show", "--root", str(root), "--output"]
    assert main([*args, str(tmp_path / "o"), "--num", "0"]) == 2
    assert "--num should be 1 or more, it is 0" in capsys.readouterr().err
    assert main([*args, str(root / "query_info.txt")]) == 2
    assert "cannot write to" in capsys.readouterr().err
    missing = root / "frames" / "c1s1_000001.jpg"
    missing.unlink()
    assert main([*args, str(tmp_path / "o")]) == 2
    assert f"image {missing} does not exist" in capsys.readouterr().err
