"""A leak planted in the model is caught, and its kind and size told; without one all is quiet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from reformer_bench.check.compare import Status, compare, figures
from reformer_bench.check.words import message
from reformer_bench.cli.main import main
from reformer_bench.run import entry, predict
from reformer_bench.run.executors.local import LocalExecutor
from reformer_bench.run.predict import predicted_record
from reformer_bench.schema.baseline import baseline_of
from reformer_bench.schema.case import Case
from reformer_bench.schema.record import Record
from reformer_bench.schema.tolerances import Metric
from reformer_bench.schema.units import format_bytes
from reformer_bench.store import RunInfo, RunWriter, save_baseline
from tests import planted
from tests.builders import case, environment, order, suite

REPEATS = [5, pytest.param(50, marks=pytest.mark.slow)]
OF_LAYERS = {"n_layers": 2, "d_model": 32}
# Attention's scores are dropped before the first layer's backward pass, so the peak sees the leak.
TARGET = case("transformer", length=96, model=OF_LAYERS)


def measured(executor: LocalExecutor, cases: Sequence[Case]) -> list[Record]:
    return list(executor.run([order(of, max_samples=1) for of in cases]))


@pytest.fixture(scope="module")
def clean() -> Iterator[LocalExecutor]:
    executor = LocalExecutor()
    yield executor
    executor.close()


@pytest.fixture(scope="module")
def leaking() -> Iterator[LocalExecutor]:
    executor = LocalExecutor(planted.measure)
    yield executor
    executor.close()


@pytest.fixture(scope="module")
def before(clean) -> Record:
    (record,) = measured(clean, [TARGET])
    return record


def predicted(of: Case) -> Record:
    # What was worked out before is remembered by case, not by the model's code.
    predict._predicted.cache_clear()
    (found,) = entry.predict([of], None)
    predict._predicted.cache_clear()
    return predicted_record(of, found, environment(), None)


def check(folder: Path, old: Sequence[Record], new: Sequence[Record], capsys) -> tuple[int, str]:
    """Exit code and output of ``check``, on files as a user has them."""
    save_baseline(folder / "baseline.json", baseline_of(old))
    info = RunInfo(
        suite=suite(), device="cpu", started_at="2026-01-01", environment=new[0].environment
    )
    with RunWriter(folder / "run", info) as writer:
        for record in new:
            writer.append(record)
    with pytest.raises(SystemExit) as caught:
        main(["check", str(folder / "run"), "--baseline", str(folder / "baseline.json")])
    return caught.value.code, " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_a_leak_is_caught_in_the_measured_bytes_with_kind_size_and_phase(
    before, leaking, tmp_path, capsys
):
    (after,) = measured(leaking, [TARGET])
    (found,) = compare([before], [after]).cases
    grown = found.regressions[0]
    assert grown.metric is Metric.ALLOCATED
    assert grown.new - grown.old == planted.leak_bytes(TARGET)
    assert found.growths[0].kind == "activations"
    assert found.growths[0].bytes == planted.leak_bytes(TARGET)

    code, text = check(tmp_path, [before], [after], capsys)
    size = format_bytes(planted.leak_bytes(TARGET))
    assert code == 1
    assert "transformer, train_step, 96 × 1: allocated peak grew from" in text
    assert f"(+{size}, " in text
    assert "in backward. Grew: activations +" + size in text


def test_a_leak_is_caught_in_the_predicted_bytes_with_its_part_of_the_model(tmp_path, capsys):
    old = predicted(TARGET)
    with planted.planted():
        new = predicted(TARGET)
    (found,) = compare([old], [new]).cases
    grown = found.regressions[0]
    assert grown.metric is Metric.PREDICTED
    assert grown.new - grown.old == planted.leak_bytes(TARGET)
    assert (found.place_growths[0].place, found.place_growths[0].kind) == (
        "layers.0.feed_forward",
        "activations",
    )

    code, text = check(tmp_path, [old], [new], capsys)
    size = format_bytes(planted.leak_bytes(TARGET))
    assert code == 1
    assert f"By part of the model: activations of layers.0.feed_forward +{size}" in text


@pytest.mark.gpu
def test_a_leak_is_caught_in_the_bytes_of_cuda(clean, leaking):
    target = TARGET.model_copy(update={"device": "cuda"})
    (old,), (new,) = measured(clean, [target]), measured(leaking, [target])
    (found,) = compare([old], [new]).cases
    assert found.status is Status.REGRESSION, message(found)
    grown = found.regressions[0]
    assert grown.metric is Metric.ALLOCATED
    assert grown.new - grown.old == planted.leak_bytes(target)
    assert found.growths[0].kind == "activations"


@pytest.mark.slow
@pytest.mark.parametrize("n_repeats", REPEATS)
def test_repeated_runs_of_an_unchanged_model_are_equal_to_the_byte(clean, n_repeats):
    # Its rotations and so its buckets differ from step to step; its memory must not.
    first, *others = measured(clean, [case("lsh-transformer", length=64)] * (n_repeats + 1))
    exact = {f: v for f, v in figures(first).items() if f[0].is_exact}
    assert len(exact) == 8
    for record in others:
        (found,) = compare([first], [record]).cases
        assert found.status is Status.OK, message(found)
        assert {f: v for f, v in figures(record).items() if f[0].is_exact} == exact
