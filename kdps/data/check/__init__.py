# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps data check``: looks for what is missing, damaged or contradictory in a data set."""

from kdps.data.check.findings import Finding, Level, Report
from kdps.data.check.layout import check_layout
from kdps.data.check.run import check_split

__all__ = ["Finding", "Level", "Report", "check_layout", "check_split"]
