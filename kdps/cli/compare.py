# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps compare``: is one result better than another on the same queries?"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from kdps.cli.parsers import add_command
from kdps.errors import KdpsError
from kdps.evaluation.comparison import ChangedQuery, Comparison, compare_results
from kdps.evaluation.results_file import write_json
from kdps.evaluation.results_reader import read_results
from kdps.utils.output import check_writable

_EXAMPLE = """examples:
  kdps compare output/teacher/inference/person_search_results.json \\
      output/student/inference/person_search_results.json
  kdps compare before.json after.json --key person_search_g100 --json compared.json"""


def add_parser(commands: argparse._SubParsersAction, summary: str) -> None:
    """Add the subcommand ``compare``."""
    parser = add_command(
        commands,
        "compare",
        summary,
        _EXAMPLE,
        "Hold the result B of an evaluation against A, on the same queries: difference of mAP and "
        "top-1 with its paired 95 % bootstrap interval and the p-value of a permutation test, and "
        "the queries that changed most. Reads the JSON files that evaluations write.",
    )
    parser.add_argument("before", type=Path, metavar="A", help="results file to compare with")
    parser.add_argument("after", type=Path, metavar="B", help="results file in question")
    parser.add_argument(
        "--key",
        metavar="SEARCH",
        help="which search of the files, such as person_search_g100 (default: person_search, or "
        "the only one that both have)",
    )
    parser.add_argument(
        "--top",
        type=int,
        default=5,
        metavar="N",
        help="queries to name in each direction (default: 5)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of bootstrap and permutation test (default: 0)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Compare and print.

    Raises:
        KdpsError: a file or an option is at fault.
    """
    if args.top < 0 or args.seed < 0:
        raise KdpsError("--top and --seed: must be 0 or more")
    before, after = read_results(args.before), read_results(args.after)
    if args.json:
        if args.json.resolve() in (args.before.resolve(), args.after.resolve()):
            raise KdpsError(f"--json: {args.json} is one of the results to compare")
        check_writable(args.json)
    comparison = compare_results(before, after, key=args.key, top=args.top, seed=args.seed)
    if args.json:
        files = {"before": str(args.before), "after": str(args.after)}
        write_json({**files, **comparison.as_dict()}, args.json)
    sys.stdout.write(_console_text(comparison, args.before, args.after))


def _console_text(comparison: Comparison, before: Path, after: Path) -> str:
    lines = [
        f"{comparison.dataset}, {comparison.key}: {comparison.num_queries} queries",
        f"A: {before}",
        f"B: {after}",
        "",
        _table(comparison),
        "",
        f"AP in B: higher in {comparison.better} queries, equal in {comparison.equal}, "
        f"lower in {comparison.worse}",
        *_differing("Settings", comparison.settings),
        *_differing("Versions", comparison.versions),
    ]
    for title, queries in (("gained", comparison.gained), ("lost", comparison.lost)):
        if queries:
            lines += ["", f"Queries that {title} most:", _changed(queries)]
    return "\n".join(lines) + "\n"


def _table(comparison: Comparison) -> str:
    body = []
    for label, change in (("mAP", comparison.mean_ap), ("top-1", comparison.top1)):
        interval = change.interval
        body.append(
            [
                label,
                f"{change.before:.2f}",
                f"{change.after:.2f}",
                f"{interval.mean:+.2f}",
                f"{interval.lower:+.2f} to {interval.upper:+.2f}",
                "below 0.0001" if change.p_value < 0.0001 else f"{change.p_value:.4f}",
            ]
        )
    headers = ["", "A", "B", "B - A", "95 % interval", "p-value"]
    align = ["left", *["right"] * 5]
    return tabulate(body, headers=headers, disable_numparse=True, colalign=align)


def _changed(queries: Sequence[ChangedQuery]) -> str:
    body = [
        [
            query.image,
            " ".join(f"{v:g}" for v in query.bbox),
            f"{query.ap_before:.1f}",
            f"{query.ap_after:.1f}",
            query.first_rank_before or "none",
            query.first_rank_after or "none",
        ]
        for query in queries
    ]
    headers = ["image", "box (x1 y1 x2 y2)", "AP in A", "in B", "first rank in A", "in B"]
    align = ["left", "left", *["right"] * 4]
    return tabulate(body, headers=headers, disable_numparse=True, colalign=align)


def _differing(what: str, values: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """A line for what was not the same in both evaluations; none where all was."""
    parts = [f"{name} {_text(a)} in A, {_text(b)} in B" for name, (a, b) in values.items()]
    return [f"{what} differ: {'; '.join(parts)}"] if parts else []


def _text(value: Any) -> str:
    return "not given" if value is None else json.dumps(value)
