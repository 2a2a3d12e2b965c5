# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps ablate``: what each part of a method is worth."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kdps.ablation.plan import Plan, read_plan
from kdps.ablation.runs import Job, jobs_of, keep_outcome, train
from kdps.ablation.table import markdown, read_outcomes, rows_of
from kdps.cli.parsers import add_command
from kdps.errors import KdpsError
from kdps.utils.output import check_writable

_EXAMPLE = """examples:
  kdps ablate plan.yaml --output output/ablation
  kdps ablate plan.yaml --quick --output output/quick
  kdps ablate plan.yaml --output output/own --script my_train_net.py --runs student all"""


def add_parser(commands: argparse._SubParsersAction, summary: str) -> None:
    """Add the subcommand ``ablate``."""
    parser = add_command(
        commands,
        "ablate",
        summary,
        _EXAMPLE,
        "Train every run of a plan with every seed, and write a table: mAP, its difference to the "
        "baseline and the share of the gap to the upper run that is closed, with 95 % intervals "
        "over seeds and queries. An interrupted ablation goes on where it stopped; a run that has "
        "a result by the same configs is not done again.",
    )
    parser.add_argument("plan", type=Path, help="YAML file of the runs")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder of the trainings"
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="folder of a JSON file per run and of table.md (default: results in --output)",
    )
    parser.add_argument("--quick", action="store_true", help="the short form that the plan has")
    parser.add_argument("--runs", nargs="+", metavar="NAME", help="only these runs of the plan")
    parser.add_argument(
        "--script",
        type=Path,
        metavar="FILE",
        help="train_net.py that knows parts of your own",
    )
    parser.add_argument("--table-only", action="store_true", help="train nothing")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train what is not done yet and write the table; returns the exit code."""
    plan = read_plan(args.plan, quick=args.quick)
    results = args.results or args.output / "results"
    if args.script is not None and not args.script.is_file():
        raise KdpsError(f"--script: no such file: {args.script}")
    unknown = set(args.runs or ()) - {own.name for own in plan.runs}
    if unknown:
        raise KdpsError(f"--runs: {args.plan} has no run {sorted(unknown)[0]!r}")
    check_writable(results / "table.md")
    jobs = jobs_of(plan, args.output, results, args.script)
    failed = []
    for job in jobs if not args.table_only else []:
        name = f"{job.run.name}, seed {job.seed}"
        if args.runs and job.run.name not in args.runs:
            continue
        if job.is_done():
            _say(f"{name}: done already, see {job.result}")
            continue
        _say(f"\n{name}")
        if train(job, args.script):
            failed.append(name)
            continue
        try:
            keep_outcome(job)
        except KdpsError as error:
            _say(f"{name}: {error}")
            failed.append(name)
            continue
        _write_table(plan, jobs, results)
    _say("\n" + _write_table(plan, jobs, results))
    if failed:
        raise KdpsError(f"these have failed, the reasons are above: {'; '.join(failed)}")
    return 0


def _write_table(plan: Plan, jobs: Sequence[Job], results: Path) -> str:
    table = markdown(plan, rows_of(plan, read_outcomes(jobs)))
    results.mkdir(parents=True, exist_ok=True)
    (results / "table.md").write_text(f"# {plan.title}\n\n{table}\n")
    return table


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
