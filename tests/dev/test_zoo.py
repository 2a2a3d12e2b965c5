# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import json

import pytest
import steps
import zoo

BASE = "_BASE_: none\n"
REPORT = {
    "rows": [
        {"row": "model", "mAP": 60.04, "top1": 80.0},
        {"row": "histogram", "mAP": 40.0, "top1": 70.0},
    ],
    "detection": {"recall": 90.0, "AP": 88.88},
    "settings": {"commit of this report": "0123456789"},
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository with two small configs and a page for the table."""
    for module in (steps, zoo):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / zoo.CONFIGS).mkdir(parents=True)
    for name in ("nae_tiny", "oim_tiny"):
        (tmp_path / zoo.CONFIGS / f"{name}.yaml").write_text("A: 1\n")
    (tmp_path / zoo.PAGE).write_text(f"before\n{zoo.BEGIN}\nold\n{zoo.END}\nafter\n")
    return tmp_path


@pytest.fixture
def ran(monkeypatch):
    """Chains that were run; each leaves what a training and a report leave, or fails."""
    done = []

    def run_steps(plan, state, environment, before=""):
        done.append([step.name for step in plan])
        if plan[0].name == "data":
            return 0
        if "oim_tiny_s1" in str(state):
            return 3
        model, page = plan[0].output, plan[1].output
        model.mkdir(parents=True)
        lines = [{"iteration": 19, "time": 0.3}, {"iteration": 39, "time": 0.5}, {"iteration": 40}]
        (model / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
        page.with_suffix(".json").write_text(json.dumps(REPORT))
        return 0

    monkeypatch.setattr(zoo, "run_steps", run_steps)
    return done


def test_runs_of_all_models_and_seeds_make_the_table(root, ran, capsys):
    assert zoo.main([]) == 1
    error = "zoo: error: these have failed, the reasons are above: oim_tiny, seed 1"
    assert capsys.readouterr().out.splitlines()[-1] == error
    lines = (root / zoo.PAGE).read_text().splitlines()
    assert (lines[0], lines[-1], "old" in lines) == ("before", "after", False)
    config = "configs/synth/nae_tiny.yaml"
    assert (
        f"| [nae_tiny]({config}) | 60.0 / 60.0 | 40.0 / 40.0 | 80.0 / 80.0 | 90.0 / 90.0 "
        "| 88.9 / 88.9 | 40 | 0 / 0 | 0123456 |"
    ) in lines
    assert any(line.startswith("| [oim_tiny]") and " 60.0 |" in line for line in lines)


def test_what_is_there_is_not_done_again(root, ran, capsys):
    zoo.main(["--models", "nae_tiny", "--seeds", "0"])
    assert ran == [["data"], ["model", "report"]]
    assert zoo.main(["--models", "nae_tiny", "--seeds", "0", "--output", "elsewhere"]) == 0
    assert len(ran) == 2
    assert "done already, see docs/results/zoo/nae_tiny_s0.json" in capsys.readouterr().out
    (root / zoo.CONFIGS / "nae_tiny.yaml").write_text("A: 2\n")
    zoo.main(["--models", "nae_tiny", "--seeds", "0", "--output", "elsewhere"])
    assert len(ran) == 4


def test_what_is_of_another_config_is_left_out(root, ran):
    zoo.main(["--seeds", "0"])
    (root / zoo.CONFIGS / "nae_tiny.yaml").write_text("A: 2\n")
    (root / zoo.CONFIGS / "oim_tiny.yaml").unlink()
    zoo.write_table()
    assert not any("_tiny]" in line for line in (root / zoo.PAGE).read_text().splitlines())


def test_a_page_without_markers_is_refused(root, ran):
    (root / zoo.PAGE).write_text("nothing")
    with pytest.raises(SystemExit, match="MODEL_ZOO.md lacks the marker"):
        zoo.write_table()


def test_the_small_configs_are_found():
    assert "seqnet_tiny" in zoo.models()
    assert len(zoo.run_key("seqnet_tiny", 0)) == 64
