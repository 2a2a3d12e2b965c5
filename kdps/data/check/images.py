# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Are all images there, and can they be read?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from tqdm import tqdm

from kdps.data.check.findings import Report
from kdps.data.datasets.images import READ_THREADS, probe_image, size_fault
from kdps.errors import KdpsError


def check_images(
    name: str, records: list[dict[str, Any]], report: Report, *, decode: bool = False
) -> None:
    """Report each image that is missing, damaged or of another size than recorded.

    Args:
        name: of the split, for messages.
        records: the split; records of readable images get ``height`` and ``width``.
        report: takes the findings.
        decode: read all pixels, not only the header.
    """
    with ThreadPoolExecutor(READ_THREADS) as pool:
        results = pool.map(partial(_try_probe, decode=decode), records)
        # disable=None: no bar where the output is no terminal.
        bar = tqdm(results, total=len(records), desc=f"{name}: images", unit="", disable=None)
        for record, result in zip(records, bar, strict=True):
            if isinstance(result, KdpsError):
                report.error(f"{name}: {result}")
                continue
            fault = size_fault(record, *result)
            if fault:
                report.error(f"{name}: {fault}")
            record["height"], record["width"] = result


def _try_probe(record: dict[str, Any], decode: bool) -> tuple[int, int] | KdpsError:
    try:
        return probe_image(record["file_name"], decode)
    except KdpsError as error:
        return error
