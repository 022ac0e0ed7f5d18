"""A model can't tell fake tensors from real ones; torch itself can."""

import pytest
import torch
import torch._subclasses
from torch._subclasses.fake_tensor import FakeTensor

from reformer_bench.measure.fake.disguise import fake_tensors_in_disguise
from reformer_bench.measure.fake.recording import record_fake_allocations


def is_fake(x) -> bool:
    return isinstance(x, getattr(torch, "_subclasses").FakeTensor)  # noqa: B009


def test_a_model_sees_real_tensors():
    with record_fake_allocations() as recording, recording.phase("forward"):
        x = torch.ones(3)
        assert type(x) is FakeTensor
        assert not is_fake(x)
    assert is_fake(x)


def test_torch_itself_sees_fake_tensors():
    source = "import torch\ndef asked():\n    return torch._subclasses.FakeTensor\n"
    names: dict[str, object] = {}
    exec(compile(source, torch.__file__, "exec"), names)
    with fake_tensors_in_disguise():
        assert names["asked"]() is FakeTensor


def test_recordings_may_nest_and_other_names_stay_unknown():
    with fake_tensors_in_disguise():
        with fake_tensors_in_disguise():
            pass
        assert torch._subclasses.FakeTensor is not FakeTensor
        with pytest.raises(AttributeError, match="no attribute 'Unknown'"):
            _ = torch._subclasses.Unknown
    assert torch._subclasses.FakeTensor is FakeTensor
