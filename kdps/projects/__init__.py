# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Home of the bundled methods: ``projects/<Name>/<package>`` is ``kdps.projects.<package>``."""

from pathlib import Path

# An installation has the packages in this folder. In a checkout they lie under projects/.
_ROOT = Path(__file__).resolve().parents[2]
if (_ROOT / "setup.py").is_file():
    __path__.extend(str(folder) for folder in sorted(_ROOT.glob("projects/*/")))
