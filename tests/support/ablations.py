# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A small plan of an ablation, and a script that only pretends to train."""

from pathlib import Path

PLAN = """
title: "Toy"
seeds: [0, 1]
common: ["SOLVER.MAX_ITER", 5]
baseline: student
upper: teacher
runs:
  teacher: {config: teacher.yaml, seeds: [0]}
  student: {config: student.yaml, label: "student alone"}
  all: {config: student.yaml, options: ["A.B", "c"], teachers: {scene: teacher}}
quick:
  seeds: [0]
  common: ["SOLVER.MAX_ITER", 2]
  runs: ["teacher", "student"]
"""

# Notes its arguments and writes what a training leaves. The AP of two queries depends on the run.
SCRIPT = """
import json, sys
from pathlib import Path
args = dict(zip(sys.argv[1::2], sys.argv[2::2]))
options = sys.argv[4:]
options = dict(zip(options[::2], options[1::2]))
folder = Path(options["OUTPUT_DIR"])
with open(folder.parent / "calls.txt", "a") as calls:
    calls.write(folder.name + sys.argv[3].replace("--resume", "") + "\\n")
if (folder.parent / "fail").exists():
    sys.exit(3)
(folder / "options.json").write_text(json.dumps(options))
ap = {"teacher": [80.0, 60.0], "student": [40.0, 40.0], "all": [60.0, 50.0],
      "two": [70.0, 70.0]}[folder.name[:-3]]
queries = [
    {"query_id": i, "image": "a.jpg", "bbox": [0, 0, 1, 1], "person_id": i, "AP": x,
     "num_truths": 1, "ranks": [1]}
    for i, x in enumerate(ap)
]
(folder / "inference").mkdir(exist_ok=True)
(folder / "inference" / "person_search_results.json").write_text(json.dumps({
    "dataset": "toy", "settings": {}, "queries": {"person_search": queries},
    "person_search": {"mAP": sum(ap) / 2, "top1": 100.0}, "detection": {"recall": 90.0, "AP": 85.0},
}))
if sys.argv[3] == "--eval-only":
    sys.exit(0)
records = [{"iteration": 1, "time": 2.0}, {"iteration": 3, "time": 4.0}, {"iteration": 3}]
(folder / "metrics.json").write_text("".join(json.dumps(r) + "\\n" for r in records))
"""


def write_ablation(folder: Path) -> Path:
    """Write plan, configs and script; returns the plan's file."""
    (folder / "base.yaml").write_text("A: 1\n")
    (folder / "teacher.yaml").write_text('_BASE_: "base.yaml"\nB: 2\n')
    (folder / "student.yaml").write_text('_BASE_: "base.yaml"\nB: 3\n')
    (folder / "train.py").write_text(SCRIPT)
    (folder / "plan.yaml").write_text(PLAN)
    return folder / "plan.yaml"
