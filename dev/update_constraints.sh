#!/usr/bin/env bash
# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
# Resolves every pin anew, for Python 3.10 to 3.12 at once. Needs uv (`pip install uv`).
set -euo pipefail
cd "$(dirname "$0")/.."
uv pip compile --universal --python-version 3.10 --upgrade --quiet \
    --no-annotate --no-emit-index-url --no-emit-find-links \
    --custom-compile-command "dev/update_constraints.sh" \
    --extra dev setup.py dev/requirements/*.txt --output-file dev/constraints.txt
