"""The pytest plugin: limits on a test's peak memory, and benchmarks whose memory must not grow.

It does nothing until a test uses it, and imports no torch before that.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import ContextDecorator, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reformer_bench.schema.errors import InputError
from reformer_bench.schema.tolerances import parse_share
from reformer_bench.schema.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from reformer_bench.measure.peak import PeakMetric, PeakReading, PeakRecording

_MARKER = "limit_peak_memory"
_SHOWN_SIZES = 6
_SAME = ("torch_version", "torch_threads")
"""What has to be the same in two benchmarks before their bytes are compared."""

_BASELINE = pytest.StashKey[Mapping[str, Mapping[str, Any]]]()


class PeakMemory(ContextDecorator):
    """Measures the peak memory of a block or of a function, and fails the test above a limit.

    It is a context manager and a decorator; each call of a decorated function is measured by
    itself.

    Args:
        limit: The most the block may allocate: a size such as ``"512 MiB"``, or a number of bytes.
            None sets no limit; the figures can be read afterwards.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``, as in ``record_peak``.
        metric: ``allocated`` or ``predicted``, as in ``record_peak``.

    Raises:
        ValueError: The limit is no size, or there is no device or metric of that name.
        RuntimeError: The CUDA device isn't there.
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
        """The peak, what of it was kept, and its allocations; there after the block."""
        if self._recording is None:
            raise RuntimeError("no block has run: enter it with `with`")
        return self._recording.reading

    @property
    def peak_bytes(self) -> int:
        """The peak in bytes; there once the block has ended."""
        return self.reading.peak_bytes

    def extra_info(self) -> dict[str, Any]:
        """Return the peak in bytes and what it may be compared with.

        It is meant for ``benchmark.extra_info.update(...)`` of pytest-benchmark.
        """
        import torch

        return {
            f"peak_{self.reading.metric}_bytes": self.peak_bytes,
            "torch_version": torch.__version__,
            "torch_threads": torch.get_num_threads(),
        }

    def problem(self) -> str | None:
        """Return what the test fails with when the peak is over the limit; None when it is not."""
        if self.limit_bytes is None or self.peak_bytes <= self.limit_bytes:
            return None
        return _over(self.reading, self.limit_bytes)

    def _recreate_cm(self) -> PeakMemory:
        return PeakMemory(self.limit_bytes, self._device, self._metric)

    def measure(self, stack: ExitStack) -> None:
        """Measure until the stack is left, without judging the peak."""
        from reformer_bench.measure.peak import record_peak

        self._recording = stack.enter_context(record_peak(self._device, self._metric))

    def __enter__(self) -> PeakMemory:
        self.measure(self._stack)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        __tracebackhide__ = True
        self._stack.__exit__(kind, *error)
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
    """Limit the peak memory of part of a test.

    It is used as ``with peak_memory("512 MiB", device="cpu") as peak:``, or as the decorator
    ``@peak_memory("512 MiB")``. Afterwards ``peak.reading`` has the figures, in bytes; see
    ``PeakMemory`` for the arguments.
    """
    return PeakMemory


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that compare the memory of benchmarks."""
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
    """Make the marker known, and read the file that benchmarks are compared with."""
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
    """Measure a test that has the marker, and compare one that has run a benchmark."""
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
    """Begin the measurement that a marker asks for; the test fails where that can't be done."""

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
    """Say how a benchmark's memory grew since the file; None where it hasn't, or isn't in it."""
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
    """Read each benchmark's extra_info, by the benchmark's full name."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        return {one["fullname"]: one["extra_info"] for one in data["benchmarks"]}
    except OSError as error:
        raise InputError(f"--memory-compare {file}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"--memory-compare {file}: is no file of pytest-benchmark's (--benchmark-json)"
        ) from None
