from reformer_bench.report.groups import group_records
from reformer_bench.schema.record import Outcome
from tests.builders import record


def test_batches_make_their_own_groups() -> None:
    groups = group_records([record(length=n, batch=b) for n in (512, 1024) for b in (1, 8)])
    assert [(g.batch, g.lengths) for g in groups] == [(1, (512, 1024)), (8, (512, 1024))]


def test_a_sweep_at_fixed_tokens_is_one_group() -> None:
    records = [record(length=n, batch=32768 // n) for n in (1024, 2048, 4096)]
    (group,) = group_records(records)
    assert group.batch is None
    assert [group.batch_at(n) for n in group.lengths] == [32, 16, 8]


def test_workloads_devices_and_seeds_stay_apart() -> None:
    records = [
        record(),
        record(workload="forward"),
        record(device="cuda"),
        record(seed=3),
    ]
    assert len(group_records(records)) == 4


def test_the_last_record_of_a_repeated_case_counts() -> None:
    (group,) = group_records([record(outcome=Outcome.KILLED), record("transformer"), record()])
    cell = group.cell("reformer", 1024)
    assert cell is not None
    assert cell.outcome is Outcome.OK
    assert group.replaced == 1
    assert group.variants == ("reformer", "transformer")


def test_series_are_sorted_by_length() -> None:
    (group,) = group_records([record(length=n) for n in (4096, 512, 1024)])
    assert [r.case.length for r in group.series("reformer")] == [512, 1024, 4096]
