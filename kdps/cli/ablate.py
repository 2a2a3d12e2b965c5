# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps ablate``: what each part of a method is worth."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from kdps.ablation.chart import chart
from kdps.ablation.parallel import Environment, do_jobs
from kdps.ablation.plan import Plan, read_plan
from kdps.ablation.runs import Job, check_folder, jobs_of, keep_outcome, train
from kdps.ablation.table import markdown, read_outcomes, rows_of
from kdps.cli.parsers import add_command
from kdps.errors import KdpsError
from kdps.utils.output import check_writable

_EXAMPLE = """examples:
  kdps ablate plan.yaml --output output/ablation
  kdps ablate plan.yaml --quick --output output/quick
  kdps ablate plan.yaml --output output/ablation --parallel 4
  kdps ablate plan.yaml --output output/own --script my_train_net.py --runs student all"""


def add_parser(commands: argparse._SubParsersAction, summary: str) -> None:
    """Add the subcommand ``ablate``."""
    parser = add_command(
        commands,
        "ablate",
        summary,
        _EXAMPLE,
        "Train every run of a plan with every seed, and write a table and its picture: mAP, its "
        "difference to the baseline and the share of the gap to the upper run that is closed, with "
        "95 % intervals over seeds and queries. An interrupted ablation goes on where it stopped; "
        "a run that has a result by the same configs is not done again.",
    )
    parser.add_argument("plan", type=Path, help="YAML file of the runs")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder of the trainings"
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="folder of a JSON file per run, table.md and chart.svg (default: results in --output)",
    )
    parser.add_argument("--quick", action="store_true", help="the short form that the plan has")
    parser.add_argument("--runs", nargs="+", metavar="NAME", help="only these runs of the plan")
    parser.add_argument(
        "--script",
        type=Path,
        metavar="FILE",
        help="train_net.py that knows parts of your own",
    )
    parser.add_argument(
        "--parallel",
        type=int,
        default=1,
        metavar="N",
        help="trainings at a time, over all GPUs or else all CPU cores; what each prints goes to "
        "console.txt in its folder (default: 1, which prints here)",
    )
    parser.add_argument("--table-only", action="store_true", help="train nothing")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train what is not done yet and write the table; returns the exit code."""
    plan = read_plan(args.plan, quick=args.quick)
    results = args.results or args.output / "results"
    if args.script is not None and not args.script.is_file():
        raise KdpsError(f"--script: no such file: {args.script}")
    if args.parallel < 1:
        raise KdpsError(f"--parallel: must be at least 1, not {args.parallel}")
    unknown = set(args.runs or ()) - {own.name for own in plan.runs}
    if unknown:
        raise KdpsError(f"--runs: {args.plan} has no run {sorted(unknown)[0]!r}")
    check_writable(results / "table.md")
    jobs = jobs_of(plan, args.output, results, args.script)
    failed = _train_all(plan, jobs, results, args) if not args.table_only else []
    _say("\n" + _write_table(plan, jobs, results))
    if failed:
        raise KdpsError(f"these have failed, the reasons are above: {'; '.join(failed)}")
    return 0


def _train_all(
    plan: Plan, jobs: Sequence[Job], results: Path, args: argparse.Namespace
) -> list[str]:
    """Train what is asked for and not done yet; returns names of what failed."""
    failed: list[str] = []
    by_folder = {job.folder: job for job in jobs}
    one_at_a_time = threading.Lock()

    def work(job: Job, environment: Environment) -> None:
        log = job.folder / "console.txt" if args.parallel > 1 else None
        try:
            for needed in (by_folder[name] for name in job.needed):
                if not needed.is_done():
                    raise KdpsError(f"needs {needed.name}, which has no result")
                if not needed.folder.is_dir():
                    raise KdpsError(f"needs {needed.name}: {needed.folder} is gone")
            _say(f"\n{job.name}" if log is None else f"{job.name}: begun, see {log}")
            if train(job, args.script, environment=environment, log=log):
                raise KdpsError("has failed" if log is None else f"has failed, see {log}")
            with one_at_a_time:
                keep_outcome(job)
                _write_table(plan, jobs, results)
            if log is not None:
                _say(f"{job.name}: done")
        except KdpsError as error:
            _say(f"{job.name}: {error}")
            failed.append(job.name)

    asked = [job for job in jobs if not args.runs or job.run.name in args.runs]
    wanted = {name for job in asked if not job.is_done() for name in job.needed}
    to_do = []
    for job in asked:
        if job.is_done() and job.folder in wanted and not job.folder.is_dir():
            _say(f"{job.name}: again, as others need {job.folder}, which is gone")
            # What is stopped half way goes on the next time.
            job.result.unlink()
        if job.is_done():
            _say(f"{job.name}: done already, see {job.result}")
        else:
            check_folder(job)
            to_do.append(job)
    do_jobs(to_do, work, args.parallel)
    return failed


def _write_table(plan: Plan, jobs: Sequence[Job], results: Path) -> str:
    rows = rows_of(plan, read_outcomes(jobs))
    table = markdown(plan, rows)
    results.mkdir(parents=True, exist_ok=True)
    (results / "chart.svg").write_text(chart(plan, rows))
    (results / "table.md").write_text(f"# {plan.title}\n\n{table}\n")
    return table


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
