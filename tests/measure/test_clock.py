"""The clock adds phases up and keeps steps apart; instants come from a counter, not from time."""

from __future__ import annotations

from itertools import count

import pytest
import torch

from reformer_bench.measure.clock import StepClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StepClock:
    """A clock on which every reading is a second after the one before."""
    seconds = count(100)
    monkeypatch.setattr("time.perf_counter", lambda: float(next(seconds)))
    return StepClock(torch.device("cpu"))


def test_phases_and_what_lies_between_them_make_the_total(clock: StepClock) -> None:
    for name in ("forward", "backward", "optimizer"):
        with clock.phase(name):
            pass
    step = clock.finish()
    assert (step.forward_ms, step.backward_ms, step.optimizer_ms) == (1000, 1000, 1000)
    assert step.total_ms == 5000


def test_a_phase_that_did_not_run_is_absent(clock: StepClock) -> None:
    with clock.phase("forward"):
        pass
    step = clock.finish()
    assert (step.total_ms, step.backward_ms, step.optimizer_ms) == (1000, None, None)


def test_a_phase_run_twice_counts_both_times(clock: StepClock) -> None:
    for _ in range(2):
        with clock.phase("forward"):
            pass
    assert clock.finish().forward_ms == 2000


def test_steps_are_apart(clock: StepClock) -> None:
    for _ in range(2):
        with clock.phase("forward"):
            pass
        assert clock.finish().total_ms == 1000
    with pytest.raises(RuntimeError, match="without phases"):
        clock.finish()


def test_an_unknown_phase_names_those_there_are(clock: StepClock) -> None:
    with pytest.raises(ValueError, match="allowed: forward, backward, optimizer"):
        clock.phase("build").__enter__()


@pytest.mark.gpu
def test_the_devices_work_is_timed_not_its_launch() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    clock = StepClock(device)
    x = torch.ones(4096, 4096, device=device)
    for _ in range(2):
        with clock.phase("forward"):
            for _ in range(20):
                x @ x
        step = clock.finish()
    # 2.7 TFLOP can't take less than a millisecond on any device there is.
    assert step.forward_ms is not None
    assert step.forward_ms > 1
    assert step.total_ms >= step.forward_ms
