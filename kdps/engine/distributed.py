# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Distributed training on GPUs and, for lack of them, on several CPU processes."""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.engine import create_ddp_model
from detectron2.engine import launch as launch_on_gpus
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm
from torch import nn

from kdps.errors import KdpsError


def wrap_for_training(model: nn.Module) -> nn.Module:
    """``DistributedDataParallel`` around the model if there is more than one process.

    Buffers are not broadcast in each step: lookup tables agree by their own rule, and what is in
    training mode does not look at its running statistics.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    # Detectron2 passes the local rank as device, which DDP refuses for CPU modules.
    options: dict[str, Any] = {"device_ids": None} if on_cpu else {}
    # The name changed in torch 2.14, which warns about the former one.
    parameters = inspect.signature(nn.parallel.DistributedDataParallel).parameters
    renamed = "forward_sync_buffers" in parameters
    options["forward_sync_buffers" if renamed else "broadcast_buffers"] = False
    return create_ddp_model(model, **options)


@torch.no_grad()
def share_buffers(model: nn.Module) -> None:
    """Give all ranks the buffers of rank 0, which are those that a checkpoint holds.

    The ranks see different images, so their running statistics differ; without this each rank
    would evaluate its share of the test set, or ask a running mean of itself, with its own.
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def launch(
    function: Callable[..., Any],
    *,
    num_gpus: int,
    num_processes: int,
    num_machines: int,
    machine_rank: int,
    dist_url: str,
    args: tuple,
) -> None:
    """Run ``function(*args)`` in every process of a training job, and in this one if it is alone.

    A process that torchrun has started is one of the job already, and the numbers below are not
    asked: it uses the GPU of its local rank over NCCL, or gloo where no GPU is to be seen.

    Args:
        function: importable by name, since processes are spawned.
        num_gpus: processes on this machine, one per GPU, over NCCL.
        num_processes: if above 1, processes on this machine on the CPU, over gloo; Detectron2's
            launcher would take NCCL wherever it sees a GPU. Several machines without GPUs use gloo
            as well.
        num_machines: machines of the job.
        machine_rank: this machine among them.
        dist_url: where they meet; "auto" picks a free port of this machine.
        args: arguments of the function.

    Raises:
        KdpsError: torchrun has started more processes than there are GPUs.
    """
    if dist.is_torchelastic_launched():
        _run_under_torchrun(function, args)
        return
    # Detectron2's launcher wants a GPU as soon as there are several machines.
    alone = num_processes == 1 and num_machines == 1
    if alone or (num_processes == 1 and torch.cuda.is_available()):
        launch_on_gpus(function, num_gpus, num_machines, machine_rank, dist_url, args)
        return
    if dist_url == "auto":
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    # Ranks are spawned; their data loaders' workers shall start as they would in this process.
    workers_start = mp.get_start_method()
    job = (workers_start, function, num_processes, num_machines, machine_rank, dist_url, args)
    mp.start_processes(_run_on_cpu, args=job, nprocs=num_processes)


def _run_on_cpu(
    local_rank: int,
    workers_start: str,
    function: Callable[..., Any],
    num_processes: int,
    num_machines: int,
    machine_rank: int,
    dist_url: str,
    args: tuple,
) -> None:
    mp.set_start_method(workers_start, force=True)
    if "OMP_NUM_THREADS" not in os.environ:
        # All cores for each process would make them take turns.
        torch.set_num_threads(max(1, torch.get_num_threads() // num_processes))
    dist.init_process_group(
        "gloo",
        init_method=dist_url,
        world_size=num_processes * num_machines,
        rank=machine_rank * num_processes + local_rank,
        timeout=DEFAULT_TIMEOUT,
    )
    _run_in_group(function, num_processes, args)


def _run_under_torchrun(function: Callable[..., Any], args: tuple) -> None:
    num_processes, num_gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if 0 < num_gpus < num_processes:
        raise KdpsError(
            f"--nproc-per-node: {num_processes} processes for {num_gpus} GPUs; to train on the CPU "
            'hide the GPUs with CUDA_VISIBLE_DEVICES=""'
        )
    if num_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Ranks and where they meet are in the environment.
    dist.init_process_group("nccl" if num_gpus else "gloo", timeout=DEFAULT_TIMEOUT)
    _run_in_group(function, num_processes, args)


def _run_in_group(function: Callable[..., Any], num_processes: int, args: tuple) -> None:
    """Run it in a process that has joined the job, one of so many on this machine."""
    comm.create_local_process_group(num_processes)
    comm.synchronize()
    try:
        function(*args)
    finally:
        dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
