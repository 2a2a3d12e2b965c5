# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
# Two stages: one with compilers makes the environment, the other only carries it.

FROM nvidia/cuda:13.0.1-devel-ubuntu24.04 AS build

RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        build-essential ca-certificates git python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

# Architectures of the GPUs to run on: 8.0 is A100, 8.6 RTX 30, 8.9 RTX 40 and L4, 9.0 H100 and H200.
ARG TORCH_CUDA_ARCH_LIST="8.0;8.6;8.9;9.0"
WORKDIR /opt/kdps
COPY . .
RUN PIP_NO_CACHE_DIR=1 TORCH_CUDA_ARCH_LIST="${TORCH_CUDA_ARCH_LIST}" \
    python3 dev/install.py --venv /opt/venv --source git --cuda


FROM ubuntu:24.04

RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 python3 \
    && rm -rf /var/lib/apt/lists/*

COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/kdps /opt/kdps

ENV PATH=/opt/venv/bin:$PATH \
    DETECTRON2_DATASETS=/data \
    MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /opt/kdps

# Fails the build if anything cannot be imported.
RUN python -c "import detectron2._C, kdps.train_net" && kdps --help > /dev/null

# Ubuntu's image has a user 1000 of this name.
RUN mkdir -p /data /output && chown ubuntu:ubuntu /data /output
USER ubuntu
VOLUME ["/data", "/output"]

ENTRYPOINT ["/opt/kdps/dev/docker_entrypoint.sh"]
CMD ["--help"]
