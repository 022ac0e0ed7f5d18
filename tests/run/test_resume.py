"""Resume rules: one folder, one run."""

from pathlib import Path

import pytest

from reformer_bench.run.expand import expand
from reformer_bench.run.resume import check_continues, reopened
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.record import Outcome
from reformer_bench.schema.suite import DeviceTable
from reformer_bench.store import Run, RunInfo
from tests.builders import case, environment, plan, record_of, run_info, suite


def run_of(made: RunInfo) -> Run:
    records = [record_of(case) for case in expand(made.suite, "cpu")]
    return Run(path=Path("out"), records=records, info=made)


def test_the_same_suite_in_the_same_environment_continues():
    check_continues(run_of(run_info()), run_info(started_at="later"), expand(suite(), "cpu"))


def test_other_lengths_limits_and_fewer_variants_continue():
    longer = suite(
        lengths=[64, 128],
        variants={"reformer": {"preset": "reformer"}},
        device={"cpu": {"case_timeout_s": 5}},
    )
    check_continues(run_of(run_info()), run_info(suite=longer), expand(longer, "cpu"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"suite": suite(name="other")}, "holds a run of suite 'tiny', not 'other'"),
        ({"memory_budget_bytes": 2**30}, "memory budget of none, not 1 GiB"),
        (
            {"environment": environment(torch_version="2.14.0")},
            "another environment (torch_version: '2.13.0' then, '2.14.0' now)",
        ),
        ({"environment": environment(hostname_hash="f00")}, "hostname_hash: 'c0ffee' then"),
    ],
    ids=["suite", "budget", "torch", "host"],
)
def test_what_differs_is_refused_in_one_line(changes, words):
    wanted = run_info(**changes)
    with pytest.raises(InputError) as caught:
        check_continues(run_of(run_info()), wanted, expand(wanted.suite, "cpu"))
    text = str(caught.value)
    assert text.startswith("--out out: ")
    assert words in text
    assert "\n" not in text


def test_hosts_of_a_cluster_may_differ():
    wanted = run_info(environment=environment(hostname_hash="f00"))
    check_continues(run_of(run_info()), wanted, expand(suite(), "cpu"), same_host=False)


def test_another_model_under_the_same_name_is_refused():
    changed = suite(model={**suite().model.model_dump(exclude_unset=True), "n_hashes": 8})
    with pytest.raises(InputError, match=r"measured with model\.n_hashes = 4, not 8"):
        check_continues(run_of(run_info()), run_info(suite=changed), expand(changed, "cpu"))


def test_records_without_their_run_file_are_refused():
    with pytest.raises(InputError, match=r"has records but no run\.json"):
        check_continues(Run(Path("out"), [record_of()]), run_info(), [])


def stopped(limit_s: float | None, wall_ms: float = 45e3) -> Run:
    """Ended at 32, killed at 64, skipped from 128 on; out of memory in another model."""
    killed = record_of(case(length=64), Outcome.TIMEOUT)
    records = [
        record_of(case(length=32)),
        killed.model_copy(update={"time_limit_s": limit_s, "wall_ms": wall_ms}),
        record_of(case(length=128), Outcome.SKIPPED),
        record_of(case(length=256), Outcome.SKIPPED),
        record_of(case("transformer", length=32), Outcome.HOST_OOM),
        record_of(case("transformer", length=64), Outcome.SKIPPED),
    ]
    made = run_info(suite=suite(device={"cpu": {"case_timeout_s": 45}}))
    return Run(path=Path("out"), records=records, info=made)


def again(run: Run, limit_s: float, *, retry: bool = False) -> list[tuple[str, int]]:
    limits = DeviceTable(case_timeout_s=limit_s)
    found = reopened(run, plan([one.case for one in run.records], limits), retry=retry)
    return [(one.case.variant, one.case.length) for one in found]


@pytest.mark.parametrize("wall_ms", [45e3, 0.0], ids=["killed", "not started"])
@pytest.mark.parametrize("recorded", [45.0, None], ids=["in the record", "in run.json"])
def test_a_longer_time_limit_reopens_what_the_shorter_one_stopped(recorded, wall_ms):
    run = stopped(recorded, wall_ms)
    assert again(run, 45.0) == []
    assert again(run, 46.0) == [("reformer", 64), ("reformer", 128), ("reformer", 256)]


def test_a_retry_reopens_everything_without_a_result():
    assert again(stopped(45.0), 45.0, retry=True) == [
        ("reformer", 64),
        ("reformer", 128),
        ("reformer", 256),
        ("transformer", 32),
        ("transformer", 64),
    ]


def test_only_what_is_asked_for_is_reopened():
    run = stopped(45.0)
    asked = [one.case for one in run.records if one.case.length <= 64]
    found = reopened(run, plan(asked, DeviceTable(case_timeout_s=90)), retry=False)
    assert [one.case.length for one in found] == [64]
