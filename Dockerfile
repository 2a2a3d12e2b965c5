# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
# Two stages: one with compilers makes the environment, the other only carries it. Without GPU:
#   docker build --build-arg BUILD_IMAGE=ubuntu:24.04 --build-arg INSTALL="--source git" .
# dev/chroot_check.py runs these lines without Docker.
ARG BUILD_IMAGE=nvidia/cuda:13.0.1-devel-ubuntu24.04
ARG RUN_IMAGE=ubuntu:24.04

FROM ${BUILD_IMAGE} AS build

# Versions of a distribution's packages come and go with its mirrors: none are named.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        build-essential ca-certificates git python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

# What dev/install.py is told.
ARG INSTALL="--source git --cuda"
# GPUs to compile for: all that CUDA 13 knows, from 7.5 (T4, RTX 20) on. 8.0 is A100, 8.6 RTX 30,
# 8.9 RTX 40 and L4, 9.0 H100 and H200, 10.0 B200, 12.0 RTX 50; later ones by way of PTX.
ARG TORCH_CUDA_ARCH_LIST="7.5;8.0;8.6;8.9;9.0;10.0;12.0+PTX"
WORKDIR /opt/kdps
COPY . .
# INSTALL is several words.
# hadolint ignore=SC2086
RUN PIP_NO_CACHE_DIR=1 FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="${TORCH_CUDA_ARCH_LIST}" \
    python3 dev/install.py --venv /opt/venv ${INSTALL}


# The image is named above.
# hadolint ignore=DL3006
FROM ${RUN_IMAGE}

LABEL org.opencontainers.image.title="kdps" \
    org.opencontainers.image.description="Person search with knowledge distillation, on Detectron2" \
    org.opencontainers.image.licenses="Apache-2.0"

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 python3 \
    && rm -rf /var/lib/apt/lists/*

COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/kdps /opt/kdps

ENV PATH=/opt/venv/bin:$PATH \
    DETECTRON2_DATASETS=/data \
    MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /opt/kdps

# Fails the build if something cannot be imported, is not registered or does not train.
RUN python dev/smoke.py && kdps env

# Ubuntu's image has a user 1000 of its own.
RUN if id ubuntu 2> /dev/null; then userdel ubuntu; fi \
    && useradd --uid 1000 --create-home kdps \
    && mkdir -p /data /output \
    && chown kdps:kdps /data /output
USER 1000
VOLUME ["/data", "/output"]

ENTRYPOINT ["/opt/kdps/dev/docker_entrypoint.sh"]
CMD ["kdps", "--help"]
