# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The browser that pages are tested with."""

from __future__ import annotations

import shutil

import pytest


def find_browser() -> str:
    """Path of a Chromium; without one, the test is skipped."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path:
            return path
    pytest.skip("no Chromium to open the page with")
