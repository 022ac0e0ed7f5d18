"""The Slurm executor, on submitit's stand-in that runs jobs as local processes."""

import sys

import pytest

from reformer_bench.run.executors.slurm import SlurmExecutor
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.record import Outcome
from tests.builders import case, order
from tests.run import tasks


def test_without_submitit_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r"pip install 'reformer-bench\[slurm\]'"):
        SlurmExecutor(tmp_path)


def test_a_job_must_say_which_device_it_needs(tmp_path):
    pytest.importorskip("submitit")
    with pytest.raises(InputError, match="say cpu or cuda"):
        SlurmExecutor(tmp_path).describe("auto")


def test_without_slurm_it_says_so_in_one_line(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="--executor slurm: "):
        SlurmExecutor(tmp_path).describe("cpu")


def test_every_order_of_an_array_becomes_a_record(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    executor = SlurmExecutor(tmp_path, cluster="local", poll_s=0.2)
    try:
        cases = [case("transformer", length=length) for length in (32, 64)]
        records = list(executor.run([order(of) for of in cases]))
        assert {r.case_id for r in records} == {of.id for of in cases}
        for one in records:
            assert one.outcome is Outcome.OK, one.message
            assert one.environment.hostname_hash != "c0ffee", "taken in the job"
            assert one.overhead is not None
    finally:
        executor.close()


def test_a_job_that_fails_is_a_record_with_the_reason(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setattr("reformer_bench.run.executors.slurm.measure_in_job", tasks.fail_job)
    executor = SlurmExecutor(tmp_path, cluster="local", poll_s=0.2)
    (record,) = executor.run([order()])
    assert record.outcome is Outcome.ERROR
    assert record.message is not None
    assert record.message.startswith("job ")
    assert "\n" not in record.message
