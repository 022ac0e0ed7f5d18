import pandas as pd
import pytest

from reformer_bench.report.frames import BREAKDOWN, CaseRow, breakdown_frame, case_frame
from reformer_bench.schema.record import Outcome
from reformer_bench.schema.units import MIB
from tests.builders import record, sweep


def test_one_row_per_record_in_order() -> None:
    records = sweep()
    frame = case_frame(records)
    assert list(frame.case_id) == [r.case_id for r in records]
    assert set(frame.outcome) == {"ok", "device-oom", "timeout", "skipped"}


def test_bytes_are_integers_even_where_some_are_absent() -> None:
    frame = case_frame([record(peak=217 * MIB), record("transformer", 2048, Outcome.DEVICE_OOM)])
    assert frame.peak_bytes.dtype == "Int64"
    assert frame.peak_bytes[0] == 217 * MIB
    assert frame.peak_bytes[1] is pd.NA
    assert frame.reserved_peak_bytes.isna().all()


def test_every_record_has_the_same_columns() -> None:
    kinds = [record(), record(outcome=Outcome.ERROR), record(device="cuda"), record(peak=None)]
    assert len({tuple(CaseRow(r).columns()) for r in kinds}) == 1


def test_phases_keep_their_own_peaks() -> None:
    row = CaseRow(record(peak=1000 * MIB, device="cuda")).columns()
    assert row["warm_forward_allocated_bytes"] == 800 * MIB
    assert row["cold_backward_allocated_bytes"] == row["peak_bytes"] == 1000 * MIB
    assert row["cold_backward_reserved_bytes"] == row["reserved_peak_bytes"] == 1100 * MIB


def test_throughput_is_tokens_over_the_median_and_its_quartiles_are_swapped() -> None:
    row = CaseRow(record(length=1000, batch=2, samples_ms=[100.0, 200.0, 300.0]))
    assert row.tokens_per_second == pytest.approx(10_000)
    assert row.rate_quartiles == pytest.approx((8_000, 2000 / 0.15))
    columns = row.columns()
    assert columns["tokens_per_second_lower"] == pytest.approx(8_000)
    assert columns["tokens_per_second_upper"] == pytest.approx(2000 / 0.15)


def test_matmul_share_is_flops_of_the_median_step_over_the_devices_speed() -> None:
    row = CaseRow(record(samples_ms=[1000.0]))
    assert row.matmul_share == pytest.approx(0.1e9 * 1000 / 350e9)


def test_breakdown_shares_add_up_and_cases_without_one_are_left_out() -> None:
    frame = breakdown_frame([record(), record("transformer", outcome=Outcome.DEVICE_OOM)])
    assert len(frame) == 1
    assert sum(frame[f"{part}_share"][0] for part in BREAKDOWN) == pytest.approx(1.0)
    assert frame.total_bytes[0] == 217 * MIB


def test_no_records_give_empty_frames() -> None:
    assert case_frame([]).empty
    assert breakdown_frame([]).empty
