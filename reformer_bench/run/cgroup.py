"""This process's memory control group: its limit, and how many of its processes were killed."""

from __future__ import annotations

from pathlib import Path

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
