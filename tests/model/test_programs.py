"""Where a model's fused programs run, and what a launch says of itself."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from reformer_bench.measure.fake.devices import device_model
from reformer_bench.measure.fake.recording import record_fake_allocations
from reformer_bench.model.programs import fuses, launch
from reformer_bench.schema.standing import kind_of, standing_for

CPU = torch.device("cpu")


def test_the_cpu_stands_for_a_gpu_only_where_it_is_said():
    assert not fuses(CPU)
    with standing_for("cuda"):
        assert kind_of("cpu") == "cuda"
        assert fuses(CPU)
        with standing_for("cpu"):
            assert not fuses(CPU)
    assert kind_of("cpu") == "cpu"


def test_what_a_cpu_stands_for_ends_with_an_error():
    with pytest.raises(KeyError), standing_for("cuda"):
        raise KeyError
    assert kind_of("cpu") == "cpu"


@pytest.mark.parametrize(("moved", "counted"), [(None, 2 * 5 * 4), (7, 7)])
def test_a_launch_on_fake_tensors_is_counted_and_not_run(moved, counted):
    """A tensor that is given twice is moved once."""
    with record_fake_allocations(device_model("cuda")) as recording, recording.phase("forward"):
        x, y = torch.empty(5), torch.empty(5)
        launch("there.is.none", "such", (1,), 4, x, y, x, 3, flops=11, moved_bytes=moved)
    assert recording.work[0].launches == 1
    assert recording.work[0].moved_bytes == counted
    assert recording.flops[0] == 11


def test_fake_tensors_of_a_model_launch_nothing():
    with FakeTensorMode(), standing_for("cuda"):
        launch("there.is.none", "such", (1,), 4, torch.empty(3))
