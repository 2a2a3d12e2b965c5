#!/bin/sh
# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
# In the container: `train ...` is train_net.py, everything else a subcommand of kdps.
set -eu
if [ "${1:-}" = train ]; then
    shift
    exec python /opt/kdps/train_net.py "$@"
fi
exec kdps "$@"
