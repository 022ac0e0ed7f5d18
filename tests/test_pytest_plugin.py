"""The pytest plugin: limits to the byte, benchmarks whose memory grew, and idle otherwise."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import torch

from reformer_bench.measure.peak import record_peak

pytest_plugins = ["pytester"]

PLUGIN = ("-p", "reformer_bench.pytest_plugin", "-p", "no:cacheprovider")
PEAK = 4 * 1024


@pytest.fixture(scope="module", autouse=True)
def _loaded():
    """Everything a measurement imports, before pytester does: it forgets what a run imported, and
    parts of torch can't be imported twice."""
    for device, metric in (("cpu", "allocated"), ("cpu", "predicted"), ("cuda", "predicted")):
        with record_peak(device, metric):
            torch.empty(2) + 1


@pytest.fixture(autouse=True)
def _no_other_plugins(monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.fixture
def tests(pytester):
    def run(body: str, *arguments: str, subprocess: bool = False):
        pytester.makepyfile("import pytest\nimport sys\n" + body)
        call = pytester.runpytest_subprocess if subprocess else pytester.runpytest_inprocess
        return call(*PLUGIN, "--strict-markers", *arguments)

    return run


def limited(limit: object, options: str = 'device="cpu"') -> str:
    return f"""
@pytest.mark.limit_peak_memory({limit!r}, {options})
def test_it():
    import torch
    kept = torch.empty({PEAK // 4 - 256})
    torch.empty(256)
"""


@pytest.mark.parametrize("options", ['device="cpu"', 'device="cpu", metric="predicted"'])
def test_a_peak_at_the_limit_passes_and_one_byte_over_it_fails(tests, options):
    tests(limited(PEAK, options)).assert_outcomes(passed=1)
    result = tests(limited(PEAK - 1, options))
    result.assert_outcomes(failed=1)
    metric = "predicted" if "predicted" in options else "allocated"
    result.stdout.fnmatch_lines(
        [
            f"peak memory of 4 KiB (4,096 bytes) ({metric}, cpu) is over the limit of "
            "4 KiB (4,095 bytes) by 1 B (1 bytes)",
            "  kept until the end: 0 B (0 bytes)",
            "  temporary:          4 KiB (4,096 bytes)",
            "  allocations alive at the peak: 3 KiB, 1 KiB",
        ]
    )


def test_a_test_that_fails_by_itself_says_its_own_reason(tests):
    result = tests(limited(1) + "    assert 1 == 2\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert 1 == 2*"])
    result.stdout.no_fnmatch_line("*peak memory*")


def test_sizes_of_people_are_understood(tests):
    tests(limited("4 KiB")).assert_outcomes(passed=1)
    tests(limited("3.9 KiB")).assert_outcomes(failed=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("'4 KiX'", "*is not a size*"),
        ("", "*limit_peak_memory: *missing*limit*"),
        ("1, device='tpu'", "*'tpu' is not a device*"),
        ("1, metric='resident'", "*'resident' is not a metric*"),
    ],
)
def test_a_marker_that_makes_no_sense_fails_its_test(tests, arguments, said):
    result = tests(f"@pytest.mark.limit_peak_memory({arguments})\ndef test_it(): pass\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([said])


@pytest.mark.slow
def test_the_fixture_is_a_context_manager_and_a_decorator(tests):
    tests(
        """
def test_block(peak_memory):
    import torch
    with peak_memory(4000, device="cpu") as peak:
        torch.empty(1000)
    assert peak.peak_bytes == 4000
    with pytest.raises(pytest.fail.Exception, match="over the limit"):
        with peak_memory(3999, device="cpu"):
            torch.empty(1000)
    with peak_memory(device="cuda", metric="predicted") as peak:
        torch.empty(2**40)
    assert peak.peak_bytes == 2**42

def test_function(peak_memory):
    import torch
    @peak_memory(4000, device="cpu")
    def make(n):
        return torch.empty(n).numel()
    assert [make(1000), make(1000)] == [1000, 1000]
    with pytest.raises(pytest.fail.Exception, match="over the limit"):
        make(1001)
    assert make(1) == 1

def test_error(peak_memory):
    with pytest.raises(ZeroDivisionError):
        with peak_memory(0, device="cpu"):
            1 / 0
"""
    ).assert_outcomes(passed=3)


def test_unused_it_imports_no_torch(tests):
    body = "def test_it(): assert not {'torch', 'numpy', 'pandas'} & set(sys.modules)\n"
    tests(body, subprocess=True).assert_outcomes(passed=1)


def test_it_is_installed_under_its_modules_name():
    # Under another one, `-p` with the module's name would load it a second time.
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    name = "reformer_bench.pytest_plugin"
    assert project["project"]["entry-points"]["pytest11"] == {name: name}


@pytest.mark.slow
def test_it_works_under_xdist(tests):
    body = limited(PEAK) + limited(PEAK - 1).replace("test_it", "test_over")
    result = tests(body, "-p", "xdist.plugin", "-n", "1", subprocess=True)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*is over the limit of*"])


BENCHMARK = """
def test_it(benchmark, peak_memory):
    import torch
    with peak_memory(device="cpu") as peak:
        torch.empty(1000)
    benchmark.extra_info.update(peak.extra_info())
    benchmark(lambda: None)
"""


def baseline(pytester, **info: object) -> str:
    now = {
        "peak_allocated_bytes": 4000,
        "torch_version": torch.__version__,
        "torch_threads": torch.get_num_threads(),
    }
    name = "test_a_benchmark.py::test_it"
    one = {"fullname": name, "extra_info": {**now, **info}}
    return str(pytester.path / pytester.makefile(".json", old=json.dumps({"benchmarks": [one]})))


@pytest.fixture
def compared(pytester):
    def run(body: str = BENCHMARK, *arguments: str, **info: object):
        file = baseline(pytester, **info)
        pytester.makepyfile(test_a_benchmark="import pytest\n" + body)
        return pytester.runpytest_inprocess(
            *PLUGIN,
            "-p",
            "pytest_benchmark.plugin",
            "--benchmark-disable",
            "--memory-compare",
            file,
            *arguments,
        )

    return run


@pytest.mark.parametrize(
    ("old", "arguments", "passes"),
    [
        (4000, (), True),
        (3981, (), True),
        (3980, (), False),
        (3980, ("--memory-tolerance", "1%"), True),
        (9000, (), True),
    ],
)
def test_a_benchmark_whose_memory_grew_fails(compared, old, arguments, passes):
    result = compared(BENCHMARK, *arguments, peak_allocated_bytes=old)
    result.assert_outcomes(passed=int(passes), failed=int(not passes))
    if not passes:
        result.stdout.fnmatch_lines(
            ["peak_allocated_bytes grew from 3.89 KiB (3,980 bytes) to 3.91 KiB (4,000 bytes) *"]
        )


def test_a_benchmark_of_another_torch_is_not_compared_and_fails(compared):
    result = compared(torch_version="1.0")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["memory can't be compared*: torch_version was 1.0 and is *"])


def test_a_benchmark_that_is_not_in_the_file_is_warned_of(compared):
    result = compared(BENCHMARK.replace("test_it", "test_new"))
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*test_new is not in the file*"])


@pytest.mark.parametrize(("text", "said"), [("{}", "*is no file of*"), (None, "*cannot be read*")])
def test_a_file_that_is_none_of_pytest_benchmarks_is_a_usage_error(pytester, text, said):
    path = pytester.path / "old.json"
    if text is not None:
        path.write_text(text)
    result = pytester.runpytest_inprocess(*PLUGIN, "--memory-compare", str(path))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])


@pytest.mark.gpu
def test_on_cuda_limits_hold_to_the_block(tests):
    body = (
        limited(PEAK, 'device="cuda"')
        .replace("empty(", "empty(device='cuda', size=(")
        .replace("256)\n", "256,))\n")
    )
    tests(body).assert_outcomes(passed=1)
    tests(body.replace(str(PEAK), str(PEAK - 1), 1)).assert_outcomes(failed=1)
