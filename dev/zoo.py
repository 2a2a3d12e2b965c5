# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Train every small model of configs/synth with several seeds, and write the table of all.

Each finished run leaves a JSON file in docs/results/zoo; a run that has one by the present configs
is not done again. An interrupted training goes on from its last checkpoint. The table stands in
MODEL_ZOO.md, between two markers.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from command import say
from demo import draw_step, environment_of, report_step, train_step
from steps import ROOT, chain_key, in_command, run_steps

from kdps.engine.metrics_file import training_time

CONFIGS = "configs/synth"
RESULTS = "docs/results/zoo"
PAGE = "MODEL_ZOO.md"
BEGIN, END = "<!-- table of `make zoo`: begin -->", "<!-- table of `make zoo`: end -->"
SEEDS = (0, 1)
# What takes at most ten minutes on two quiet cores; the configs' own schedules are a
# demonstration's.
ITERATIONS = {
    "alignps_plus_tiny": 5500,
    "alignps_tiny": 5600,
    "coat_tiny": 2050,
    "nae_plus_tiny": 2900,
    "nae_tiny": 1800,
    "oim_tiny": 3000,
    "roi_alignps_tiny": 4200,
    "seqnext_tiny": 2600,
}
ITERATIONS_OF_OTHERS = 1600


def models() -> list[str]:
    """Names of the small configs, such as "seqnet_tiny"."""
    return sorted(path.stem for path in (ROOT / CONFIGS).glob("*_tiny.yaml"))


def schedule(name: str) -> tuple[str, ...]:
    """Keys and values of the schedule of a model."""
    iterations = ITERATIONS.get(name, ITERATIONS_OF_OTHERS)
    return ("SOLVER.MAX_ITER", str(iterations), "TEST.EVAL_PERIOD", "0")


def run_model(name: str, seed: int, folder: Path) -> int:
    """Train and evaluate, if that was not done yet; returns the exit code."""
    config = f"{CONFIGS}/{name}.yaml"
    key, result = run_key(name, seed), result_file(name, seed)
    if result.exists() and json.loads(result.read_text())["key"] == key:
        say(f"{name}, seed {seed}: done already, see {in_command(result)}")
        return 0
    say(f"\n{name}, seed {seed}")
    model = folder / f"{name}_s{seed}"
    page = model.with_suffix(".html")
    plan = [
        train_step(config, seed, model, "train and evaluate", schedule(name)),
        report_step(config, model, page),
    ]
    data = draw_step(folder / "data")
    environment = environment_of(folder / "data")
    code = run_steps([data], folder / "data.json", environment) or run_steps(
        plan, model.with_suffix(".steps"), environment, before=chain_key([data])
    )
    if code == 0:
        iterations, seconds = training_time(model / "metrics.json")
        content = {
            "key": key,
            "config": config,
            "seed": seed,
            "iterations": iterations,
            "minutes": seconds / 60,
            "report": json.loads(page.with_suffix(".json").read_text()),
        }
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_text(json.dumps(content, indent=1) + "\n")
    return code


def run_key(name: str, seed: int) -> str:
    """Digest of what decides a run, wherever it works: its configs, the drawing and the seed."""
    config = f"{CONFIGS}/{name}.yaml"
    data = replace(draw_step(ROOT), command=())
    training = replace(train_step(config, seed, ROOT, ""), command=(str(seed), *schedule(name)))
    return chain_key([data, training])


def result_file(name: str, seed: int) -> Path:
    """Where the numbers of a run are kept."""
    return ROOT / RESULTS / f"{name}_s{seed}.json"


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The table of all runs, a row per config, in Markdown."""
    runs: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for result in sorted(results, key=lambda result: (result["config"], result["seed"])):
        runs[result["config"]].append(result)
    heads = ["config", "mAP by seed", "colour histogram", "top-1", "recall", "AP"]
    heads += ["iterations", "training, min", "commit"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for config, of_config in runs.items():
        reports = [run["report"] for run in of_config]
        found = [{row["row"]: row for row in report["rows"]} for report in reports]
        commits = dict.fromkeys(r["settings"]["commit of this report"][:7] for r in reports)
        cells = [
            f"[{Path(config).stem}]({config})",
            _each("{:.1f}", [rows["model"]["mAP"] for rows in found]),
            _each("{:.1f}", [rows["histogram"]["mAP"] for rows in found]),
            _each("{:.1f}", [rows["model"]["top1"] for rows in found]),
            _each("{:.1f}", [report["detection"]["recall"] for report in reports]),
            _each("{:.1f}", [report["detection"]["AP"] for report in reports]),
            " / ".join(dict.fromkeys(str(run["iterations"]) for run in of_config)),
            _each("{:.0f}", [run["minutes"] for run in of_config]),
            ", ".join(commits),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_table() -> None:
    """Put the table of all results by the present configs into the page."""
    results = [json.loads(path.read_text()) for path in sorted((ROOT / RESULTS).glob("*.json"))]
    results = [own for own in results if _is_present(own)]
    page = ROOT / PAGE
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"zoo: error: {PAGE} lacks the marker {END if begin else BEGIN}")
    page.write_text(f"{before}{begin}\n\n{table(results)}\n\n{end}{after}")
    say(f"\nWrote the table of {len(results)} runs into {PAGE}")


def _is_present(result: Mapping[str, Any]) -> bool:
    """Whether a result is of a config as it stands now."""
    name = Path(result["config"]).stem
    return name in models() and result["key"] == run_key(name, result["seed"])


def _each(form: str, values: Sequence[float]) -> str:
    return " / ".join(form.format(value) for value in values)


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is not trained yet and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = models()
    parser.add_argument("--models", nargs="+", choices=known, default=known, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, metavar="N")
    parser.add_argument("--output", type=Path, default=Path("output/zoo"), metavar="DIR")
    args = parser.parse_args(argv)
    folder = (ROOT / args.output).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    try:
        # One seed of all first, so that a night that ends early leaves a whole column.
        for seed in args.seeds:
            for name in args.models:
                if run_model(name, seed, folder):
                    failed.append(f"{name}, seed {seed}")
                write_table()
    except KeyboardInterrupt:
        say("\nzoo: interrupted; the next call goes on from here")
        return 128 + signal.SIGINT
    if failed:
        say(f"zoo: error: these have failed, the reasons are above: {'; '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
