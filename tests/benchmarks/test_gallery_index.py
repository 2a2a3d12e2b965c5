# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import json
import sys

import gallery_index
import pytest

pytest.importorskip("faiss")
pytest.importorskip("milvus_lite")


def test_a_small_run(monkeypatch, capsys, tmp_path):
    options = ["--rows", "700", "--size", "16", "--queries", "70", "--repeat", "1"]
    monkeypatch.setattr(sys, "argv", ["gallery_index.py", *options, "--folder", str(tmp_path)])
    gallery_index.main()
    found = json.loads(capsys.readouterr().out)
    assert list(found["back_ends"]) == ["flat", "ivfpq", "milvus-lite"]
    for row in found["back_ends"].values():
        # Too few for codes, so that all are exact.
        assert row["recall@10"] == pytest.approx(1, abs=0.01)
        assert all(value > 0 for value in row.values())
    # 700 vectors of 16 numbers.
    assert found["back_ends"]["flat"]["MB"] == pytest.approx(0.0448, rel=0.05)
    assert list(found["seconds_of_64_queries"]) == ["product", "torch", "FAISS flat"]
    assert list(tmp_path.iterdir()) == []
