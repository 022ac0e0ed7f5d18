"""Describes a device: what a name stands for where the cases will run, and how fast it is."""

from __future__ import annotations

import torch

from reformer_bench.measure import environment, flops
from reformer_bench.run.expand import check_device
from reformer_bench.run.order import Description
from reformer_bench.spec.errors import InputError


def describe_device(name: str) -> Description:
    """Say what ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` is here; InputError where there
    is none.
    """
    check_device(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu":
        _check_cuda(name)
    return Description(device=name, environment=environment.collect(torch.device(name)))


def _check_cuda(name: str) -> None:
    if not torch.cuda.is_available():
        raise InputError(
            f"--device: {name} was asked for, but torch {torch.__version__} sees no CUDA device"
        )
    count = torch.cuda.device_count()
    index = torch.device(name).index
    if index is not None and index >= count:
        raise InputError(
            f"--device: {name} was asked for, but the devices are cuda:0 to cuda:{count - 1}"
        )


def matmul_speed(device: str, dtype: str) -> float:
    """Return the FLOP/s of one large matrix product on a device in a dtype."""
    return flops.matmul_flops_per_second(torch.device(device), getattr(torch, dtype))
