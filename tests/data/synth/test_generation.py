# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import errno
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import pytest

from kdps.cli.main import main
from kdps.data.synth import SynthConfig, generate, generation
from kdps.errors import KdpsError

TINY = SynthConfig(
    train_images=3, test_images=12, train_ids=2, test_ids=6, width=160, height=120, people=(2, 3)
)


def contents(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("layout", ["cuhk-sysu", "prw"])
def test_the_seed_fixes_every_byte(tmp_path, layout):
    config = replace(TINY, cameras=2)
    first, again = (generate(config, tmp_path / name, layout).root for name in "ab")
    other = generate(replace(config, seed=1), tmp_path / "c", layout).root
    assert contents(first) == contents(again)
    assert contents(first) != contents(other)


def test_the_number_of_workers_changes_nothing(tmp_path):
    one = generate(TINY, tmp_path / "one", workers=1).root
    two = generate(TINY, tmp_path / "two", workers=2).root
    assert contents(one) == contents(two)


def test_the_summary_counts_what_is_there(tmp_path):
    summary = generate(TINY, tmp_path / "set")
    assert summary.images == {"train": 3, "test": 12}
    assert 0 < summary.labelled["test"] <= summary.boxes["test"]


def test_one_person_alone_is_a_legal_set(tmp_path):
    config = replace(
        TINY, train_ids=1, test_ids=1, people=(1, 1), strangers=0.0, test_images=24, cameras=2
    )
    summary = generate(config, tmp_path / "set", "prw")
    assert 0 < summary.labelled["train"] <= 3
    assert 2 <= summary.labelled["test"] <= 24


@pytest.mark.parametrize("layout", ["cuhk", "prw"])
def test_sets_pass_the_check(layout, request, capsys):
    root = request.getfixturevalue(f"{layout}_root")
    assert main(["data", "check", "--root", str(root)]) == 0
    assert capsys.readouterr().out.endswith("errors: 0, warnings: 0, notes: 2\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"layout": "coco"}, "format .* not 'coco'"), ({"workers": 0}, "workers .* not 0")],
)
def test_unknown_format_and_no_workers(tmp_path, arguments, message):
    with pytest.raises(KdpsError, match=message):
        generate(TINY, tmp_path / "set", **arguments)


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(KdpsError, match="not an empty folder"):
        generate(TINY, tmp_path)
    with pytest.raises(KdpsError, match="not an empty folder"):
        generate(TINY, tmp_path / "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "set").mkdir()
    assert (generate(TINY, tmp_path / "set").root / "annotation").is_dir()


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def fill_up(config, shot):
        calls.append(shot)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(generation, "render", fill_up)
    with pytest.raises(KdpsError, match="cannot be written: No space left on device"):
        generate(TINY, tmp_path / "set")
    assert calls
    assert not list(tmp_path.iterdir())


def test_a_killed_worker_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def no_pool(*_):
        raise BrokenProcessPool("A process in the process pool was terminated abruptly")

    monkeypatch.setattr(generation, "render", no_pool)
    with pytest.raises(KdpsError, match="set: a drawing process was killed"):
        generate(TINY, tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_a_place_that_may_not_be_looked_into(tmp_path, monkeypatch):
    def closed(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(generation.Path, "is_dir", closed)
    with pytest.raises(KdpsError, match="set: cannot be written: Permission denied"):
        generate(TINY, tmp_path / "set")


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KdpsError, match="file.*cannot be written"):
        generate(TINY, tmp_path / "file" / "set")
