# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The one requirement that pip cannot resolve: Detectron2."""

from __future__ import annotations

from importlib.util import find_spec

INSTALL_HELP = """\
kdps needs Detectron2, which is not installed in this Python. It is not on PyPI: please do not
`pip install detectron2`. From a clone of kdps, either of these installs it:
  python dev/install.py --source git     build it from GitHub (needs a C++ compiler)
  python dev/install.py --source pypi    its Python code from PyPI, without compiled operators
docs/install.md tells them apart."""


def require_detectron2() -> None:
    """Check that Detectron2 is there, without importing it (which takes seconds).

    Raises:
        ImportError: it is not installed; the message gives the two ways to get it.
    """
    spec = find_spec("detectron2")
    # A clone of Detectron2 in the working directory looks like a package without an origin.
    if spec is None or spec.origin is None:
        raise ImportError(INSTALL_HELP, name="detectron2")
