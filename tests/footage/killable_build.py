# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Builds of an index, each in a fork that may be killed; run by test_kill.py.

usage: python killable_build.py JOBS. JOBS is a JSON list of builds with "argv" of the command line
and "death": None, or "seconds" after the begin of the build, or the "number" of the call of the
index with the "delay" in seconds after its begin. Prints exit status and seconds of each as JSON.

A fork starts in milliseconds where a new process would import for seconds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

# So that the forks have them.
import milvus_lite.adapter.grpc.server  # noqa: F401

import kdps.cli.gallery_build  # noqa: F401
from kdps.cli.main import main as kdps
from kdps.footage import build
from kdps.index.milvus import MilvusIndex


def die_in_a_call(number: int, delay: float) -> None:
    """Kill this process so long after the index is called for the so-manieth time."""
    left = iter(range(number, -1, -1))

    def dying(method: Any) -> Any:
        def call(self: MilvusIndex, *args: Any, **kwargs: Any) -> Any:
            if next(left, None) == 0:
                if delay <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
            return method(self, *args, **kwargs)

        return call

    for name in ("remove", "upsert", "record"):
        setattr(MilvusIndex, name, dying(getattr(MilvusIndex, name)))


def run_in_a_fork(job: dict[str, Any]) -> tuple[int, float]:
    begin, death = time.monotonic(), job["death"] or {}
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            # Small, so that there is much to be interrupted.
            build._ROWS, build._FRAMES = 40, 4
            if "number" in death:
                die_in_a_call(**death)
            status = kdps(job["argv"])
        finally:
            os._exit(status)
    if "seconds" in death:
        time.sleep(death["seconds"])
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, time.monotonic() - begin


def main() -> None:
    jobs = json.loads(Path(sys.argv[1]).read_text())
    sys.stdout.write("\n" + json.dumps([run_in_a_fork(job) for job in jobs]) + "\n")


if __name__ == "__main__":
    main()
