"""The host: memory of this process and of its control group, its limit, and who is served by the
processors.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from reformer_bench.schema.case import DeviceKind
from reformer_bench.schema.record import HostMemory, Load

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_SAMPLE_PERIOD_S = 0.01

OutOfMemory = Literal["device-oom", "host-oom"]

_HOST_WORDS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "std::bad_alloc",
    "Cannot allocate memory",
)
_DEVICE_WORDS = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "Triton Error [CUDA]: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def resident_bytes() -> int:
    """Return the process's resident set now."""
    return int(psutil.Process().memory_info().rss)


def _status_bytes(field: str) -> int | None:
    """Return a size of /proc/self/status; None where there is no such file or line."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return None


class HighWaterMark:
    """Measures the highest resident set between start and stop."""

    def __init__(self) -> None:
        self.source: Literal["vmhwm", "sampled"] = "vmhwm"
        """``vmhwm``: the kernel's mark, exact. ``sampled``: by a thread, every 10 ms, and from
        getrusage where the mark of the process's whole life rose."""
        self._before = 0
        self._sampled = 0
        self._lifetime_before = 0
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        """Reset the kernel's mark, or begin to sample where it can't be reset."""
        self._before = resident_bytes()
        if _reset_kernel_mark():
            return
        self.source = "sampled"
        self._sampled = self._before
        self._lifetime_before = _lifetime_peak_bytes()
        self._thread = threading.Thread(target=self._run, name="rss-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> HostMemory:
        """Return the resident set before the start, and its peak since."""
        if self.source == "vmhwm":
            # The mark may lag behind the set by the kernel's batching of counts.
            peak = max(_status_bytes("VmHWM") or 0, resident_bytes())
        else:
            self._stopping.set()
            if self._thread is not None:
                self._thread.join()
            peak = max(self._sampled, resident_bytes())
            lifetime = _lifetime_peak_bytes()
            peak = max(peak, lifetime) if lifetime > self._lifetime_before else peak
        return HostMemory(before_bytes=self._before, peak_bytes=max(peak, self._before))

    def _run(self) -> None:
        while not self._stopping.wait(_SAMPLE_PERIOD_S):
            self._sampled = max(self._sampled, resident_bytes())


def _reset_kernel_mark() -> bool:
    """Set VmHWM back to the resident set, as proc(5) has it; False where that can't be done."""
    if _status_bytes("VmHWM") is None:
        return False
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def _lifetime_peak_bytes() -> int:
    """Return the highest resident set of the process's life; 0 where getrusage isn't there."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def limit_data_segment(budget_bytes: int) -> int:
    """Let the process allocate only so much more, so that an allocation over budget fails cleanly.

    It sets RLIMIT_DATA to the private writable memory that the process has (VmData) and the budget
    on top, and returns it. Threads' stacks count, 8 MiB each: start worker threads first. It works
    on Linux only (OSError elsewhere). ValueError is raised for a negative budget.
    """
    if budget_bytes < 0:
        raise ValueError(f"expected a budget of 0 bytes or more, got {budget_bytes}")
    held = _status_bytes("VmData")
    if held is None:
        raise OSError("a memory budget on the CPU needs Linux: /proc/self/status has no VmData")
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = held + budget_bytes
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    return limit


def lift_data_segment_limit() -> None:
    """Take the limit away again, as far as the system lets the process."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def is_out_of_memory(exception: BaseException, device_kind: DeviceKind) -> OutOfMemory | None:
    """Say whose memory ran out, the device's or the host's; None where it is another error.

    An exception raised from another (``raise … from``) is what its cause is. On the CPU the
    device's memory is the host's, so that every shortage there is ``host-oom``.
    """
    current: BaseException | None = exception
    while current is not None:
        found = _whose_memory(current)
        if found is not None:
            return "host-oom" if device_kind == "cpu" else found
        current = current.__cause__
    return None


def _whose_memory(exception: BaseException) -> OutOfMemory | None:
    # Where torch was never imported, the error isn't one of torch's.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(exception, torch.OutOfMemoryError):
        return "device-oom"
    if isinstance(exception, MemoryError):
        return "host-oom"
    if isinstance(exception, (RuntimeError, OSError)):
        text = str(exception)
        if any(words in text for words in _HOST_WORDS):
            return "host-oom"
        if any(words in text for words in _DEVICE_WORDS):
            return "device-oom"
    return None


_STAT = Path("/proc/stat")
_MOMENT_S = 0.5
# A process that takes less than this of one core isn't worth naming.
_WORTH_NAMING = 0.2


@dataclass(frozen=True)
class Reading:
    """Seconds since the machine's start that the processors this process may use were not idle."""

    at_s: float
    busy_s: float
    """With work of this machine."""
    stolen_s: float
    """With that of other virtual machines."""


def read(stat: Path = _STAT) -> Reading | None:
    """Return how busy the processors have been so far; None where the system doesn't tell."""
    try:
        lines = stat.read_text().splitlines()
    except OSError:
        return None
    usable = {f"cpu{number}" for number in _usable_processors()}
    per_second = os.sysconf("SC_CLK_TCK")
    busy = stolen = 0
    found = False
    for line in lines:
        name, *fields = line.split()
        if name not in usable or len(fields) < 8:
            continue
        found = True
        user, nice, system, _idle, _waiting, interrupts, soft_interrupts, steal = map(
            int, fields[:8]
        )
        busy += user + nice + system + interrupts + soft_interrupts
        stolen += steal
    if not found:
        return None
    return Reading(time.monotonic(), busy / per_second, stolen / per_second)


def load_between(before: Reading | None, after: Reading | None, own_s: float) -> Load | None:
    """Return who was served between two readings, ``own_s`` seconds of it being our own doing."""
    if before is None or after is None or after.at_s <= before.at_s:
        return None
    span_s = after.at_s - before.at_s
    return Load(
        own_cores=own_s / span_s,
        other_cores=max(0.0, after.busy_s - before.busy_s - own_s) / span_s,
        stolen_cores=max(0.0, after.stolen_s - before.stolen_s) / span_s,
    )


@dataclass(frozen=True)
class Glance:
    """The load of one moment, and the processes that made the most of it."""

    load: Load
    busiest: tuple[tuple[str, int, float], ...]
    """Name, number and cores of each process worth naming, the busiest first."""

    def words(self, cpu_count: int) -> str:
        """Say who takes how much, as the beginning of a sentence."""
        total = self.load.other_cores + self.load.stolen_cores
        cores = "1 core" if cpu_count == 1 else f"{cpu_count} cores"
        if self.load.stolen_cores > self.load.other_cores:
            return f"this machine's host gives {total:.1f} of its {cores} to others"
        if not self.busiest:
            return f"other processes take {total:.1f} of {cores}"
        name, number, most = self.busiest[0]
        text = f"another process ({name}, {number}) takes {most:.1f} of {cores}"
        rest = total - most
        return f"{text}, and others {rest:.1f}" if rest >= _WORTH_NAMING else text


def look(seconds: float = _MOMENT_S) -> Glance | None:
    """Watch the machine for a moment, in which this process does nothing."""
    before, own, times = read(), time.process_time(), _process_times()
    time.sleep(seconds)
    after, now = read(), _process_times()
    load = load_between(before, after, time.process_time() - own)
    if load is None:
        return None
    used = {
        key: (seconds_now - times[key]) / seconds
        for key, seconds_now in now.items()
        if key in times and key[1] != os.getpid()
    }
    busiest = sorted(used.items(), key=lambda item: -item[1])
    named = tuple(
        (name, number, cores) for (name, number), cores in busiest if cores >= _WORTH_NAMING
    )
    return Glance(load, named)


def _process_times() -> dict[tuple[str, int], float]:
    """Return the processor seconds of every process, by name and number."""
    found = {}
    for process in psutil.process_iter(["name", "pid", "cpu_times"]):
        times = process.info["cpu_times"]
        if times is not None:
            key = (process.info["name"], process.info["pid"])
            found[key] = times.user + times.system
    return found


def _usable_processors() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


_PROC = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def oom_kills(proc: Path = _PROC, mount: Path = _MOUNT) -> int | None:
    """Count the processes of this group that the kernel's out-of-memory killer ended; None where
    not known.
    """
    for name in ("memory.events", "memory.oom_control"):
        for folder in _folders(proc, mount):
            for line in _lines(folder / name):
                key, _, value = line.partition(" ")
                if key == "oom_kill" and value.strip().isdigit():
                    return int(value)
    return None


def available_bytes(proc: Path = _PROC, mount: Path = _MOUNT) -> int | None:
    """Return what the group may still take before it reaches its limit; None where no limit is
    known.
    """
    for limit_name, usage_name in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        for folder in _folders(proc, mount):
            limit = _number(folder / limit_name)
            usage = _number(folder / usage_name)
            # Version 1 writes "no limit" as nearly 2⁶³.
            if limit is not None and usage is not None and limit < 2**60:
                return max(0, limit - usage)
    return None


def _folders(proc: Path, mount: Path) -> list[Path]:
    """Return where the group's files may be, best first.

    In a container the path in /proc may be the host's, while the mount shows the container's own
    group at its root.
    """
    found: list[Path] = []
    for line in _lines(proc):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            found += [mount / path.lstrip("/"), mount]
        elif "memory" in controllers.split(","):
            found += [mount / "memory" / path.lstrip("/"), mount / "memory"]
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None
