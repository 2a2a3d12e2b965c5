# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""How many processors there are to work with."""

from __future__ import annotations

import os


def available_cpus() -> int:
    """Logical CPUs that this process may use; all of the machine where that cannot be told."""
    # A container or a batch system often allows fewer than there are; macOS cannot tell.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
