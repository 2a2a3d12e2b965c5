#!/bin/sh
# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
# In the container: `train ...`, or flags alone, is train_net.py; all else runs as it is (kdps,
# torchrun, python, a shell).
set -eu
case "${1:---help}" in
    train)
        shift
        exec python /opt/kdps/train_net.py "$@"
        ;;
    -*)
        exec python /opt/kdps/train_net.py "$@"
        ;;
    *)
        exec "$@"
        ;;
esac
