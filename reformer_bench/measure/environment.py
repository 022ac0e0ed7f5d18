"""The machine, the driver and the versions that a run was made with."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil
import torch

import reformer_bench
from reformer_bench.measure.nvml import load_nvml
from reformer_bench.schema.record import Environment

_PACKAGES = ("numpy", "nvidia-ml-py", "pydantic", "reformer-pytorch", "transformers", "triton")
_C_LIBRARY_SETTINGS = ("LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_CONF")

LIMIT_OF_TORCH = "ATEN_CPU_CAPABILITY"
LIMIT_OF_ONEDNN = "ONEDNN_MAX_CPU_ISA"
"""Environment variables, read once, when the libraries load."""

_ONEDNN_SETS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("SSE41", ("sse4_1",)),
    ("AVX", ("avx",)),
    ("AVX2", ("avx2",)),
    ("AVX512_CORE", ("avx512_f", "avx512_bw", "avx512_vl", "avx512_dq")),
    ("AVX512_CORE_VNNI", ("avx512_vnni",)),
    ("AVX512_CORE_BF16", ("avx512_bf16",)),
    ("AVX512_CORE_FP16", ("avx512_fp16",)),
    ("AVX512_CORE_AMX", ("amx_tile", "amx_bf16", "amx_int8")),
    ("AVX512_CORE_AMX_FP16", ("amx_fp16",)),
)
"""oneDNN's names, each beyond the one before, and what a processor needs for it besides."""

_NEWER_NAMES = {
    "AVX10_1_512": "AVX512_CORE_FP16",
    "AVX10_1_512_AMX": "AVX512_CORE_AMX",
    "AVX10_1_512_AMX_FP16": "AVX512_CORE_AMX_FP16",
}


def collect(device: torch.device) -> Environment:
    """Collect what decides a measurement besides the case, without measuring anything."""
    is_cuda = device.type == "cuda"
    cpu = cpu_model()
    return Environment(
        device_kind="cuda" if is_cuda else "cpu",
        device_name=torch.cuda.get_device_name(device) if is_cuda else cpu,
        device_memory_bytes=(
            torch.cuda.get_device_properties(device).total_memory if is_cuda else None
        ),
        driver_version=_driver_version() if is_cuda else None,
        cuda_version=torch.version.cuda if is_cuda else None,
        cpu_model=cpu,
        cpu_count=cpu_count(),
        torch_threads=torch.get_num_threads(),
        instruction_set=instruction_set(),
        host_memory_bytes=host_memory_bytes(),
        os=platform.platform(),
        python_version=platform.python_version(),
        torch_version=torch.__version__,
        torch_build=torch.version.cuda or "cpu",
        package_version=reformer_bench.__version__,
        allocator_settings=_cuda_settings() if is_cuda else _host_settings(),
        commit=commit(Path(reformer_bench.__file__).parent.parent),
        hostname_hash=hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8],
        packages=_versions(),
    )


def cpu_model() -> str:
    """Return the processor's name from /proc/cpuinfo, or else what the platform calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def cpu_count() -> int:
    """Count the processors that this process may run on, not those that the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def host_memory_bytes(
    limits: tuple[Path, ...] = (
        Path("/sys/fs/cgroup/memory.max"),
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    ),
) -> int:
    """Return the machine's memory, or the container's limit where that is lower."""
    total = int(psutil.virtual_memory().total)
    for path in limits:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total


def commit(root: Path) -> str | None:
    """Return the commit checked out at a folder, with -dirty after changes to tracked files.

    It is None where the folder isn't itself the top of a checkout, since an installed package may
    lie inside somebody else's; and None without git or without a commit.
    """
    if not (root / ".git").exists():
        return None
    head = _git(root, "rev-parse", "HEAD")
    if not head:
        return None
    return f"{head}-dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else head


def _git(root: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _driver_version() -> str | None:
    pynvml, _ = load_nvml()
    if pynvml is None:
        return None
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _cuda_settings() -> str:
    """Return PYTORCH_ALLOC_CONF, also by its older name."""
    new, old = os.environ.get("PYTORCH_ALLOC_CONF"), os.environ.get("PYTORCH_CUDA_ALLOC_CONF")
    return new or old or ""


def _host_settings() -> str:
    """Return what the environment tells the C library's allocator, or that another one is used."""
    names = [*_C_LIBRARY_SETTINGS, *sorted(n for n in os.environ if n.startswith("MALLOC_"))]
    found = {name: os.environ[name] for name in names if os.environ.get(name)}
    return " ".join(f"{name}={value}" for name, value in found.items())


def _versions() -> dict[str, str]:
    """Return the versions of those installed packages that can change a result."""
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def instruction_set() -> str:
    """Name the instructions that this process uses, in PyTorch's own kernels and in oneDNN."""
    # Not in every torch that is supported.
    features: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    limit = os.environ.get(LIMIT_OF_ONEDNN, "")
    onednn = onednn_set(features, limit)
    words = torch.backends.cpu.get_cpu_capability()
    return f"{words}, oneDNN {onednn}" if onednn else words


def onednn_set(features: Mapping[str, object], limit: str = "") -> str | None:
    """Return the largest of oneDNN's sets that a processor has, up to a limit; None for none."""
    limit = _NEWER_NAMES.get(limit.upper(), limit.upper())
    found = None
    for name, needed in _ONEDNN_SETS:
        if not all(features.get(feature) for feature in needed):
            break
        found = name
        if name == limit:
            break
    return found


def environment_to_play(recorded: str) -> dict[str, str]:
    """Return the environment variables that make a process use no more than a recorded set.

    There are none for a set of another architecture, or of a record that doesn't say.
    """
    found = re.fullmatch(r"(AVX2|AVX512|DEFAULT), oneDNN (\w+)", recorded)
    if found is None:
        return {}
    return {LIMIT_OF_TORCH: found[1].lower(), LIMIT_OF_ONEDNN: found[2]}
