"""Device profiles say how much memory a process can use on devices that aren't at hand, and how
fast those are at best.
"""

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
class Speeds:
    """What a device reaches at best, by its data sheet (dense products, without sparsity)."""

    bytes_per_second: float
    """Of the device's memory."""
    half: float | None
    """FLOP/s of products of bfloat16 or float16 with sums of float32; None where bfloat16 has
    none."""
    single: float
    """FLOP/s of products of float32: in TF32 where tensor cores have that, which no float32 product
    is faster than."""


@dataclass(frozen=True)
class DeviceProfile:
    """A device, by the memory that one process has for tensors."""

    name: str
    kind: Literal["cpu", "cuda"]
    usable_bytes: int | None
    """None stands for whatever the machine has."""
    source: str
    workspace_bytes: int = 0
    speeds: Speeds | None = None
    """None where they aren't known."""

    def flops_per_second(self, dtype: str) -> float | None:
        """Return the most that products of a dtype reach; None where that isn't known."""
        if self.speeds is None:
            return None
        half, single = self.speeds.half, self.speeds.single
        return {"bfloat16": half, "float16": half, "float32": single}.get(dtype)

    def lower_bound_ms(self, moved_bytes: int, flops: int, dtype: str) -> float | None:
        """Return the roofline's lower bound of a step's time, in milliseconds: that of its bytes or
        of its FLOPs, whichever takes longer (Williams et al. 2009).

        ``dtype`` is what products compute in. None where the device's speeds aren't known.
        """
        peak = self.flops_per_second(dtype)
        if self.speeds is None or peak is None:
            return None
        return 1e3 * max(moved_bytes / self.speeds.bytes_per_second, flops / peak)


def _cuda(
    name: str, mib: int, source: str, speeds: Speeds, *, hopper: bool = False
) -> DeviceProfile:
    workspace = CUBLAS_WORKSPACE_HOPPER_BYTES if hopper else CUBLAS_WORKSPACE_BYTES
    usable = mib * MIB - CUDA_CONTEXT_BYTES
    return DeviceProfile(name, "cuda", usable, source, workspace, speeds)


# Total memory as nvidia-smi shows it, ECC on where the card has it, less the context.
DEVICE_PROFILES: dict[str, DeviceProfile] = {
    profile.name: profile
    for profile in (
        _cuda(
            "a100-40",
            40_960,
            "NVIDIA A100 40GB data sheet; nvidia-smi: 40960 MiB",
            Speeds(1_555e9, 312e12, 156e12),
        ),
        # The bandwidth of the SXM module: that of the PCIe card is 1,935 GB/s.
        _cuda(
            "a100-80",
            81_920,
            "NVIDIA A100 80GB data sheet; nvidia-smi: 81920 MiB",
            Speeds(2_039e9, 312e12, 156e12),
        ),
        # The SXM module, as for the H200.
        _cuda(
            "h100-80",
            81_559,
            "NVIDIA H100 80GB data sheet; nvidia-smi: 81559 MiB",
            Speeds(3_350e9, 989e12, 495e12),
            hopper=True,
        ),
        _cuda(
            "h200",
            143_771,
            "NVIDIA H200 data sheet; nvidia-smi: 143771 MiB",
            Speeds(4_800e9, 989e12, 495e12),
            hopper=True,
        ),
        _cuda(
            "l4",
            23_034,
            "NVIDIA L4 data sheet; nvidia-smi: 23034 MiB",
            Speeds(300e9, 121e12, 60e12),
        ),
        _cuda(
            "t4",
            15_360,
            "NVIDIA T4 data sheet; nvidia-smi: 15360 MiB",
            Speeds(320e9, None, 8.1e12),
        ),
        _cuda(
            "rtx4090",
            24_564,
            "GeForce RTX 4090 data sheet; nvidia-smi: 24564 MiB",
            Speeds(1_008e9, 165e12, 82.6e12),
        ),
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
