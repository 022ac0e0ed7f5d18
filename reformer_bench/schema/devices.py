"""Device profiles say how much memory a process can use on devices that aren't at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reformer_bench.schema.errors import InputError, did_you_mean
from reformer_bench.schema.units import GIB, MIB

CUBLAS_WORKSPACE_BYTES = 8_519_680
"""What PyTorch's cuBLAS handle takes at the first matrix product (CUDABlas, getChosenWorkspaceSize:
4096 KiB twice and 16 KiB eight times); 32 MiB on Hopper."""
CUBLAS_WORKSPACE_HOPPER_BYTES = 32 * MIB

CUDA_CONTEXT_BYTES = 512 * MIB
"""What the driver, its kernels and the context keep, about: from nvidia-smi's figure for a process
that has run one operator, less what PyTorch's allocator has reserved (300 to 600 MiB)."""


@dataclass(frozen=True)
class DeviceProfile:
    """A device, by the memory that one process has for tensors."""

    name: str
    kind: Literal["cpu", "cuda"]
    usable_bytes: int | None
    """None stands for whatever the machine has."""
    source: str
    workspace_bytes: int = 0


def _cuda(name: str, mib: int, source: str, *, hopper: bool = False) -> DeviceProfile:
    workspace = CUBLAS_WORKSPACE_HOPPER_BYTES if hopper else CUBLAS_WORKSPACE_BYTES
    return DeviceProfile(name, "cuda", mib * MIB - CUDA_CONTEXT_BYTES, source, workspace)


# Total memory as nvidia-smi shows it, ECC on where the card has it, less the context.
DEVICE_PROFILES: dict[str, DeviceProfile] = {
    profile.name: profile
    for profile in (
        _cuda("a100-40", 40_960, "NVIDIA A100 40GB data sheet; nvidia-smi: 40960 MiB"),
        _cuda("a100-80", 81_920, "NVIDIA A100 80GB data sheet; nvidia-smi: 81920 MiB"),
        _cuda("h100-80", 81_559, "NVIDIA H100 80GB data sheet; nvidia-smi: 81559 MiB", hopper=True),
        _cuda("h200", 143_771, "NVIDIA H200 data sheet; nvidia-smi: 143771 MiB", hopper=True),
        _cuda("l4", 23_034, "NVIDIA L4 data sheet; nvidia-smi: 23034 MiB"),
        _cuda("t4", 15_360, "NVIDIA T4 data sheet; nvidia-smi: 15360 MiB"),
        _cuda("rtx4090", 24_564, "GeForce RTX 4090 data sheet; nvidia-smi: 24564 MiB"),
        DeviceProfile(
            "paper-16",
            "cuda",
            16 * GIB,
            "the paper's one accelerator of 16 GB, all of it for tensors",
            CUBLAS_WORKSPACE_BYTES,
        ),
        DeviceProfile("cpu", "cpu", None, "the machine at hand"),
    )
}


def device_profile(name: str, *, asked_by: str = "--device-profile") -> DeviceProfile:
    """Return the profile of that name; InputError, with the names there are, for another.

    ``asked_by`` is what the error begins with: the option or the argument that holds the name.
    """
    if name in DEVICE_PROFILES:
        return DEVICE_PROFILES[name]
    raise InputError(
        f"{asked_by}: there is no device {name!r}{did_you_mean(name, DEVICE_PROFILES)} "
        f"(allowed: {', '.join(DEVICE_PROFILES)})"
    )
