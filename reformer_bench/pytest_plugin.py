"""The pytest plugin: limits on a test's peak memory, and benchmarks whose memory must not grow.

Idle unless used: it imports no torch before a test asks for a peak.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import ContextDecorator, ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pytest

from reformer_bench.spec.errors import InputError
from reformer_bench.spec.tolerances import parse_share
from reformer_bench.spec.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from reformer_bench.measure.peak import PeakMetric, PeakReading, PeakRecording

_MARKER = "limit_peak_memory"
_SHOWN_SIZES = 6
_SAME = ("torch_version", "torch_threads")
"""What must be the same in two benchmarks for their bytes to be compared."""

_BASELINE = pytest.StashKey[Mapping[str, Mapping[str, Any]]]()


class PeakMemory(ContextDecorator):
    """Measures the peak memory of a block or of a function, and fails above a limit.

    ``limit`` is a size such as ``"512 MiB"`` or a number of bytes; None: no limit, the figures are
    read afterwards. Device and metric as in ``record_peak``. Each call of a decorated function is
    measured by itself.
    """

    def __init__(
        self,
        limit: str | int | None = None,
        device: str = "auto",
        metric: PeakMetric = "allocated",
    ) -> None:
        self.limit_bytes = None if limit is None else parse_bytes(limit)
        self._device, self._metric = device, metric
        self._stack = ExitStack()
        self._recording: PeakRecording | None = None

    @property
    def reading(self) -> PeakReading:
        """Peak, what of it was kept, and the allocations it was made of; after the block."""
        if self._recording is None:
            raise RuntimeError("no block has run: enter it with `with`")
        return self._recording.reading

    @property
    def peak_bytes(self) -> int:
        """The peak; after the block."""
        return self.reading.peak_bytes

    def extra_info(self) -> dict[str, Any]:
        """For ``benchmark.extra_info.update(...)``: the peak, and what it may be compared with."""
        import torch

        return {
            f"peak_{self.reading.metric}_bytes": self.peak_bytes,
            "torch_version": torch.__version__,
            "torch_threads": torch.get_num_threads(),
        }

    def problem(self) -> str | None:
        """Peak, limit and breakdown where the peak is over the limit; None where it is not."""
        if self.limit_bytes is None or self.peak_bytes <= self.limit_bytes:
            return None
        return _over(self.reading, self.limit_bytes)

    def _recreate_cm(self) -> PeakMemory:
        return PeakMemory(self.limit_bytes, self._device, self._metric)

    def measure(self, stack: ExitStack) -> None:
        """Measure until the stack is left, and judge nothing."""
        from reformer_bench.measure.peak import record_peak

        self._recording = stack.enter_context(record_peak(self._device, self._metric))

    def __enter__(self) -> PeakMemory:
        self.measure(self._stack)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        self._stack.__exit__(kind, error, trace)
        problem = None if kind is not None else self.problem()
        if problem is not None:
            pytest.fail(problem)


def _over(reading: PeakReading, limit_bytes: int) -> str:
    shown = ", ".join(format_bytes(size) for size in reading.sizes_bytes[:_SHOWN_SIZES])
    more = len(reading.sizes_bytes) - _SHOWN_SIZES
    return (
        f"peak memory of {_exact(reading.peak_bytes)} ({reading.metric}, {reading.device}) is over "
        f"the limit of {_exact(limit_bytes)} by {_exact(reading.peak_bytes - limit_bytes)}\n"
        f"  kept until the end: {_exact(reading.kept_bytes)}\n"
        f"  temporary:          {_exact(reading.temporary_bytes)}\n"
        f"  allocations alive at the peak: {shown}{f' and {more} more' if more > 0 else ''}"
    )


def _exact(count: int) -> str:
    return f"{format_bytes(count)} ({count:,} bytes)"


@pytest.fixture
def peak_memory() -> type[PeakMemory]:
    """``with peak_memory("512 MiB", device="cpu"):`` or ``@peak_memory("512 MiB")``."""
    return PeakMemory


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options that compare benchmarks' memory."""
    group = parser.getgroup("reformer-bench")
    group.addoption(
        "--memory-compare",
        metavar="FILE",
        help="Fail benchmarks whose memory (extra_info's *_bytes) grew since this file, which "
        "pytest-benchmark wrote.",
    )
    group.addoption(
        "--memory-tolerance",
        metavar="SHARE",
        default="0.5%",
        help="By how much it may grow (default: 0.5%%).",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, and read what benchmarks are compared with."""
    config.addinivalue_line(
        "markers",
        f'{_MARKER}(limit, device="auto", metric="allocated"): fail a test whose peak memory is '
        "over the limit; devices: auto, cpu, cuda, cuda:N; metrics: allocated, predicted",
    )
    file = config.getoption("--memory-compare")
    if file is not None:
        try:
            parse_share(config.getoption("--memory-tolerance"))
            config.stash[_BASELINE] = _load(Path(file))
        except (InputError, ValueError) as error:
            raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Measure a test that is marked, and compare one that has benchmarked."""
    marker = item.get_closest_marker(_MARKER)
    if marker is None:
        result = yield
    else:
        with ExitStack() as stack:
            limit = _begun(marker, stack)
            result = yield
        _fail_for(limit.problem())
    if _BASELINE in item.config.stash:
        _fail_for(_growth(item, item.config.stash[_BASELINE]))
    return result


def _begun(marker: pytest.Mark, stack: ExitStack) -> PeakMemory:
    """The measurement that a marker asks for, under way; the test fails where it can't be."""

    def begin(
        limit: str | int, device: str = "auto", metric: PeakMetric = "allocated"
    ) -> PeakMemory:
        made = PeakMemory(limit, device, metric)
        made.measure(stack)
        return made

    problem = ""
    try:
        return begin(*marker.args, **marker.kwargs)
    except (TypeError, ValueError, RuntimeError) as error:
        problem = str(error).replace("_begun.<locals>.begin()", _MARKER)
    # Outside, so that the report doesn't show both errors.
    pytest.fail(f"{_MARKER}: {problem}", pytrace=False)


def _fail_for(problem: str | None) -> None:
    if problem is not None:
        pytest.fail(problem, pytrace=False)


def _growth(item: pytest.Item, baseline: Mapping[str, Mapping[str, Any]]) -> str | None:
    """How a benchmark's memory grew since the file; None where it hasn't, or there is none."""
    benchmark = getattr(item, "funcargs", {}).get("benchmark")
    now = {} if benchmark is None else benchmark.extra_info
    if not any(key.endswith("_bytes") for key in now):
        return None
    old = baseline.get(item.nodeid)
    if old is None:
        item.warn(pytest.PytestWarning(f"--memory-compare: {item.nodeid} is not in the file"))
        return None
    differs = [key for key in _SAME if old.get(key) != now.get(key)]
    if differs:
        words = "; ".join(f"{key} was {old.get(key)} and is {now.get(key)}" for key in differs)
        return f"memory can't be compared with the file's: {words}"
    share = parse_share(item.config.getoption("--memory-tolerance"))
    lines = [
        f"{key} grew from {_exact(old[key])} to {_exact(value)} "
        f"({value / old[key] - 1:+.2%}; tolerance {share:.2%})"
        for key, value in now.items()
        if key.endswith("_bytes") and old.get(key) and value > old[key] * (1 + share)
    ]
    return "\n".join(lines) or None


def _load(file: Path) -> dict[str, dict[str, Any]]:
    """Each benchmark's extra_info, by its full name."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        return {one["fullname"]: one["extra_info"] for one in data["benchmarks"]}
    except OSError as error:
        raise InputError(f"--memory-compare {file}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"--memory-compare {file}: is no file of pytest-benchmark's (--benchmark-json)"
        ) from None
