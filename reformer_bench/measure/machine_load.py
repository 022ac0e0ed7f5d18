"""Machine load: whom the processors of this machine serve, and in plain words who takes them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from reformer_bench.spec.record import Load

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
    """How busy the processors have been so far; None where the system doesn't tell."""
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
    """Who was served between two readings, ``own_s`` seconds of it being our own doing."""
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
        """Who takes how much, as the beginning of a sentence."""
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
    """Processor seconds of every process, by name and number."""
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
