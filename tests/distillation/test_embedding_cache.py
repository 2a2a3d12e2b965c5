# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import multiprocessing
import sqlite3

import pytest
import torch

from kdps.distillation.embedding_cache import EmbeddingCache
from kdps.errors import KdpsError


class Network:
    """Rows of the numbers of their keys, and what it was asked."""

    def __init__(self, keys):
        self.keys = keys
        self.asked = []

    def __call__(self, rows):
        self.asked.append([self.keys[row] for row in rows])
        return torch.tensor([[float(self.keys[row][0]), 0.5] for row in rows])


def describe(cache, keys):
    network = Network(keys)
    rows = cache.describe(keys, network)
    assert rows.tolist() == [[float(key[0]), 0.5] for key in keys]
    return network.asked


def test_only_what_is_not_there_is_computed(tmp_path):
    cache = EmbeddingCache(tmp_path / "new", "a" * 64)
    assert describe(cache, [b"1", b"2"]) == [[b"1", b"2"]]
    assert describe(cache, [b"2", b"3", b"1"]) == [[b"3"]]
    assert (cache.hits, cache.misses) == (2, 3)
    assert describe(EmbeddingCache(tmp_path / "new", "a" * 64), [b"3", b"1"]) == []
    assert describe(EmbeddingCache(tmp_path / "new", "b" * 64), [b"3"]) == [[b"3"]]


def test_a_row_without_a_key_is_computed_each_time(tmp_path):
    cache = EmbeddingCache(tmp_path, "a" * 64)
    network = Network([b"1", b"2", b"3"])
    for asked in ([[b"1", b"2", b"3"]], [[b"2"]]):
        network.asked = []
        rows = cache.describe([b"1", None, b"3"], network)
        assert rows.tolist() == [[49.0, 0.5], [50.0, 0.5], [51.0, 0.5]]
        assert network.asked == asked
    cache.describe([None], Network([b"4"]))


def test_more_keys_than_a_statement_takes(tmp_path):
    keys = [bytes([i % 256, i // 256]) for i in range(1300)]
    cache = EmbeddingCache(tmp_path, "a" * 64)
    assert describe(cache, keys) == [keys]
    assert describe(cache, keys[::-1]) == []


def test_a_damaged_row_is_computed_anew(tmp_path):
    cache = EmbeddingCache(tmp_path, "a" * 64)
    describe(cache, [b"1", b"2"])
    with sqlite3.connect(cache.path) as connection:
        connection.execute("UPDATE rows SET value = x'0000000000000000' WHERE key = x'31'")
    assert describe(cache, [b"1", b"2"]) == [[b"1"]]
    assert describe(cache, [b"1", b"2"]) == []


def test_a_damaged_file_is_told_and_begun_anew(tmp_path, caplog):
    path = EmbeddingCache(tmp_path, "a" * 64).path
    path.write_bytes(b"no database at all, and long enough" * 100)
    cache = EmbeddingCache(tmp_path, "a" * 64)
    assert describe(cache, [b"1"]) == [[b"1"]]
    assert f"{path} is damaged (file is not a database) and begun anew" in caplog.text
    assert describe(cache, [b"1"]) == []


def test_a_disk_that_takes_no_more_is_told_once(tmp_path, caplog, monkeypatch):
    cache = EmbeddingCache(tmp_path, "a" * 64)
    describe(cache, [b"1"])
    cache._connection().execute("PRAGMA max_page_count = 1")
    large = [bytes([i % 250, i // 250]) + bytes(5000) for i in range(20)]
    assert describe(cache, large) == [large]
    assert describe(cache, large) == [large]
    assert caplog.text.count("is full; embeddings are kept no longer") == 1
    # What is there serves on.
    assert describe(cache, [b"1"]) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KdpsError, match="file/cache: cannot be made"):
        EmbeddingCache(tmp_path / "file" / "cache", "a" * 64)


def fill(folder, first):
    for i in range(first, first + 40, 2):
        describe(EmbeddingCache(folder, "a" * 64), [bytes([i])])


def test_processes_may_share_a_file(tmp_path):
    context = multiprocessing.get_context("fork")
    describe(EmbeddingCache(tmp_path, "a" * 64), [b"\xff"])
    workers = [context.Process(target=fill, args=(tmp_path, first)) for first in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert describe(EmbeddingCache(tmp_path, "a" * 64), [bytes([i]) for i in range(40)]) == []
