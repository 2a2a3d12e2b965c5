# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What the documents promise: links, commands and the examples, which are run."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from kdps.cli.main import main
from kdps.data import get_protocol
from kdps.engine.setup import load_cfg
from kdps.engine.trainer import PersonSearchTrainer
from kdps.modeling import REID_HEADS_REGISTRY

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("", "docs/", "datasets/", "projects/", "projects/*/")
DOCUMENTS = [path for folder in FOLDERS for path in sorted(ROOT.glob(f"{folder}*.md"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("https://"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_exist(path):
    known = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    used = re.findall(r"^(?:[A-Z0-9_]+=\S+ )*make ([a-z-]+)|`make ([a-z-]+)`", path.read_text())
    assert {a or b for a, b in used} <= set(known)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_configs_exist(path):
    for name in re.findall(
        r"(?:projects/\w+/)?configs/[\w./-]+\.yaml", path.read_text(encoding="utf-8")
    ):
        assert (ROOT / name).exists(), name


def test_the_zoo_has_a_row_for_each_config():
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "MODEL_ZOO.md").read_text(), re.MULTILINE)
    for name in ("CUHK-SYSU", "PRW"):
        assert sorted(rows) == sorted(p.stem for p in (ROOT / "configs" / name).glob("*.yaml"))


def _tables(path):
    """Rows of the tables of mAP in a document, as label and numbers."""
    rows = []
    line = re.compile(r"^\| ([A-Za-z][^|]*?) \|(.*)\|$", re.MULTILINE)
    for label, *cells in line.findall(path.read_text()):
        values = re.findall(r"(\d+\.\d)(?: \((\d+\.\d) to (\d+\.\d)\))?", cells[0])
        if values:
            rows.append((label.lower(), [float(x) for value in values for x in value if x]))
    return rows


def test_numbers_of_the_results_are_those_of_their_files():
    """The tables of docs/results.md come in the order of the links to their JSON files."""
    path = ROOT / "docs" / "results.md"
    names = re.findall(r"\]\((results/\w+\.json)\)", path.read_text())
    expected = []
    for name in names:
        for row in json.loads((path.parent / name).read_text())["rows"]:
            keys = ("mAP", "mAP_lower", "mAP_upper", "top1", "top5", "top10")
            expected.append((row["label"].lower(), [round(row[key], 1) for key in keys]))
    assert len(expected) == 4 * len(names) == 12
    assert _tables(path) == expected


def test_numbers_of_the_readme_are_those_of_the_demo():
    data = json.loads((ROOT / "docs" / "results" / "synth_seqnet_tiny.json").read_text())
    expected = [[round(row[key], 1) for key in ("mAP", "top1")] for row in data["rows"]]
    assert [numbers for _, numbers in _tables(ROOT / "README.md")] == expected


def test_citation_file_names_both_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["license"] == "Apache-2.0"
    titles = " ".join(reference["title"] for reference in citation["references"])
    assert "Diverse Knowledge Distillation" in titles
    assert "GDPS" in titles


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """The files that docs/extending.md shows, written as a reader would."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    names = set()
    for block in re.finditer(r"```(?:python|yaml)\n(.*?)```", text, re.DOTALL):
        # The text before an example says in which file it is.
        name = re.findall(r"`(my_\w+\.(?:py|yaml))`", text[: block.start()])[-1]
        (tmp_path / name).write_text(block[1])
        names.add(name)
    assert names == {"my_method.py", "my_train_net.py", "my_config.yaml", "my_data.py"}
    (tmp_path / "kdps").mkdir()
    shutil.copytree(ROOT / "configs", tmp_path / "kdps" / "configs")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def forget_examples():
    """Forgets examples that a test imports, and what they register."""
    sets, heads, modules = set(DatasetCatalog), dict(REID_HEADS_REGISTRY), set(sys.modules)
    yield
    for name in set(DatasetCatalog) - sets:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    REID_HEADS_REGISTRY._obj_map = heads
    for name in set(sys.modules) - modules:
        if name.startswith("my_"):
            del sys.modules[name]


@pytest.fixture
def import_example(examples, forget_examples, tmp_path, monkeypatch):
    """Imports an example."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    return importlib.import_module


def test_own_method_builds_from_its_config(import_example):
    method = import_example("my_method")
    opts = ["MODEL.REID_HEAD.NUM_PIDS", "4", "MODEL.REID_HEAD.QUEUE_SIZE", "4"]
    cfg = load_cfg("my_config.yaml", opts, method.add_config)
    model = PersonSearchTrainer.build_model(cfg)
    (head,) = [m for m in model.modules() if isinstance(m, method.DroppedEmbedding)]
    assert head.dropout.p == 0.2


@pytest.mark.slow
def test_own_training_script_knows_the_method(examples):
    # Stops at the missing data, which is after the config and the method have been taken in.
    command = [sys.executable, "my_train_net.py", "--config-file", "my_config.yaml"]
    environment = {"PATH": "", "DETECTRON2_DATASETS": "nowhere"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    assert "nowhere" in result.stderr.splitlines()[-1]


@pytest.fixture
def people(tmp_path):
    """The files that my_data.py reads: two people in two images, in training and test."""
    images = tmp_path / "people" / "images"
    images.mkdir(parents=True)
    data = {"images": [], "annotations": []}
    for index in range(2):
        cv2.imwrite(str(images / f"{index}.png"), np.full((40, 40, 3), index, np.uint8))
        name = f"{index}.png"
        data["images"].append({"id": index, "file_name": name, "height": 40, "width": 40})
        for x, person in ((5, 7), (25, 8)):
            box = {"image_id": index, "bbox": [x, 5, 10, 30], "person_id": person}
            data["annotations"].append(box)
    for split in ("train", "test"):
        (tmp_path / "people" / f"{split}.json").write_text(json.dumps(data))


def test_own_data_is_registered(import_example, people):
    import_example("my_data")
    records = DatasetCatalog.get("people_train")
    assert [[a["person_id"] for a in r["annotations"]] for r in records] == [[0, 1], [0, 1]]
    protocol = get_protocol("people_test")
    assert {query.person_id for query in protocol.queries} == {7, 8}
    assert DatasetCatalog.get("people_test")[0]["annotations"][0]["person_id"] == 7


def test_commands_import_own_data(examples, people, forget_examples, capsys):
    assert main(["data", "check", "--import", "my_data", "people_train", "people_test"]) == 0
    assert "people_test: 2 images, 4 boxes" in capsys.readouterr().out
    assert main(["data", "show", "--import", "my_data", "people_test"]) == 0
    assert "2 pictures" in capsys.readouterr().out


@pytest.fixture
def own_model(examples, people, forget_examples):
    """Arguments that name the example's model, with random weights, and the example's data."""
    size = ["MODEL.REID_HEAD.NUM_PIDS", "2", "MODEL.REID_HEAD.QUEUE_SIZE", "2"]
    # Dropout has no weights, so those of the bundled head fit.
    cfg = load_cfg("kdps/configs/synth/seqnet_tiny.yaml", size)
    torch.manual_seed(0)
    torch.save(PersonSearchTrainer.build_model(cfg).state_dict(), "model.pth")
    named = ["--import", "my_method", "--import", "my_data", "--config-file", "my_config.yaml"]
    sets = ["DATASETS.TEST", "('people_test',)", "TEST.PERSON_SEARCH.SCORE_THRESH", "0.0"]
    return [*named, "--weights", "model.pth"], [*size, *sets, "DATALOADER.NUM_WORKERS", "0"]


def test_search_imports_own_method_and_data(own_model):
    named, overrides = own_model
    query = ["--query", "people/images/0.png", "--box", "5", "5", "10", "30"]
    files = ["--gallery", "people/images", "--output", "sheet.png", "--json", "hits.json"]
    assert main(["search", *named, "--dataset", "people_test", *query, *files, *overrides]) == 0
    assert json.loads(Path("hits.json").read_text())["num_images"] == 1


def test_report_imports_own_method_and_data(own_model):
    named, overrides = own_model
    assert main(["report", *named, "--output", "report.html", *overrides]) == 0
    data = json.loads(Path("report.json").read_text())
    assert "NAME: DroppedEmbedding" in data["config"]
    assert data["facts"]["queries"] == 2
