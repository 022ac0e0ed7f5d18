"""Keys of repeated work: every argument takes part, and equal keys mean equal work."""

import inspect
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from reformer_bench.model import attention_layer
from reformer_bench.model.attention.dense import _Call
from reformer_bench.model.attention.kernels.eager import EagerKernel
from reformer_bench.model.attention.kernels.flash_cpu import FlashCpuKernel
from reformer_bench.model.attention.kernels.rounds import Rounds
from reformer_bench.model.attention.plan import Bias, plan_chunks
from reformer_bench.model.layer import Layer
from reformer_bench.model.repeats import REPEATED, Index, Seed, followed_by, key_of, repeats
from reformer_bench.model.stack.streams import FixedStream, FloatStream, RangeWatch
from reformer_bench.model.sublayer import PassContext, Sweep
from tests.models import batch, settings, small_config, small_model

TENSOR = torch.zeros(4, 6)
TENSORS = (
    TENSOR,
    torch.zeros(4, 5),
    torch.zeros(6, 4).t(),
    TENSOR.double(),
    torch.zeros(4, 6, requires_grad=True),
    torch.zeros(4, 6, device="meta"),
)
"""A tensor, and one of another shape, stride, dtype, need of a gradient and device."""

CONTEXT = PassContext(2, 3, Seed(1), None, True)
WATCH = RangeWatch.over(["embedding"], TENSOR)
STREAMS = (FloatStream(TENSOR), FixedStream.of(TENSOR), FixedStream.of(TENSOR, WATCH),
           FloatStream(TENSOR.double()))  # fmt: skip
SWEEP = Sweep({"a": TENSOR}, {"a": TENSOR}, STREAMS[0], TENSOR, TENSOR)
CALL = _Call(TENSOR, TENSOR, TENSOR, TENSOR, TENSOR, settings(), None)


def _rounds(qkv=None, plan=None, bias=None, cfg=None):
    cfg = cfg or settings()
    buckets = torch.zeros(2, 2, 20, dtype=torch.int64)
    plan = plan or plan_chunks(buckets, 8, across_buckets=False, ring=False)
    bias = bias or Bias.of(plan, cfg, torch.float32)
    return Rounds.of(torch.zeros(1, 20, 2, 16) if qkv is None else qkv, plan, bias, cfg)


def _layers(name):
    configs = ({}, {"d_head": 6}, {"dropout": 0.1}, {"dtype": "float32"}, {"head_groups": 2})
    dtypes = {"float32": torch.float32, "float64": torch.float64}
    return tuple(
        getattr(Layer(config, 0, dtypes[config.dtype]), name)
        for config in (small_config(**fields) for fields in configs)
        # The feed-forward sublayer has neither heads nor groups of them.
        if name == "attention" or not ({"d_head", "head_groups"} & config.model_fields_set)
    )


SAMPLES = {
    "Tensor": TENSORS,
    "Tensor | None": (None, *TENSORS),
    "Tensors": ({"a": TENSOR}, {"b": TENSOR}, {"a": TENSOR, "b": TENSOR}, {"a": TENSORS[1]}),
    "Stream": STREAMS,
    "PassContext": (
        CONTEXT,
        replace(CONTEXT, batch=3),
        replace(CONTEXT, length=4),
        replace(CONTEXT, training=False),
        replace(CONTEXT, valid_BL=torch.ones(2, 3, dtype=torch.bool)),
    ),
    "Sweep": (
        SWEEP,
        replace(SWEEP, params={"a": TENSORS[1]}),
        replace(SWEEP, grads={"a": TENSORS[2]}),
        replace(SWEEP, source=STREAMS[1]),
        replace(SWEEP, dy_PM=TENSORS[2]),
        replace(SWEEP, dx_PM=TENSORS[3]),
        replace(SWEEP, undo=STREAMS[1]),
    ),
    "Rounds": (
        _rounds(),
        _rounds(qkv=torch.zeros(1, 20, 2, 24)),
        _rounds(plan=plan_chunks(torch.zeros(2, 3, 20, dtype=torch.int64), 8,
                                 across_buckets=False, ring=False)),
        _rounds(cfg=settings(causal=False)),
        _rounds(cfg=settings(attend_across_buckets=True)),
        _rounds(cfg=settings(count_duplicates=False)),
        replace(_rounds(), heads=1),
        replace(_rounds(), batch=2),
    ),
    "_Call": (
        CALL,
        *(replace(CALL, **{name: TENSORS[2]}) for name in ("q", "k", "v", "out", "normaliser")),
        replace(CALL, settings=settings(causal=False)),
        replace(CALL, valid_BL=TENSOR.bool()),
    ),
    "slice": (slice(0, 3), slice(0, 4)),
    "int": (0, 1),
    "bool": (False, True),
    "tuple[int, ...]": ((4, 6), (4, 8), (4,)),
}  # fmt: skip
"""For each annotation values of which no two decide the same shapes."""

SELVES = {
    "AttentionSublayer": _layers("attention"),
    "FeedForwardSublayer": _layers("feed_forward"),
    "BlockKernel": (EagerKernel(), FlashCpuKernel()),
}

ALIKE = {
    "Index": (Index(0), Index(5)),
    "slice": (slice(0, 3), slice(7, 10)),
    "PassContext": (CONTEXT, replace(CONTEXT, seed=Seed(2))),
    "AttentionSublayer": (SELVES["AttentionSublayer"][0],
                          Layer(small_config(), 2, torch.float64).attention),
}  # fmt: skip
"""Values that differ on purpose in nothing that decides a shape."""


def _samples(work, name, parameter):
    if name == "self":
        return SELVES[work.__qualname__.split(".")[0]]
    if parameter.annotation == "Index":
        return ALIKE["Index"][:1]
    return SAMPLES[parameter.annotation]


@pytest.mark.parametrize("work", REPEATED, ids=lambda work: work.__qualname__)
def test_every_parameter_takes_part_in_the_key(work):
    samples = {
        name: _samples(work, name, parameter)
        for name, parameter in inspect.signature(work).parameters.items()
    }
    plain = [values[0] for values in samples.values()]
    keys = {key_of(work, *plain)}
    for i, values in enumerate(samples.values()):
        keys |= {key_of(work, *plain[:i], other, *plain[i + 1 :]) for other in values[1:]}
    assert len(keys) == 1 + sum(len(values) - 1 for values in samples.values())


@pytest.mark.parametrize("kind", ALIKE)
def test_which_of_several_alike_is_meant_and_what_is_drawn_take_no_part(kind):
    one, other = ALIKE[kind]
    assert key_of(_nothing, one) == key_of(_nothing, other)


@pytest.mark.parametrize("work", REPEATED, ids=lambda work: work.__qualname__)
def test_marked_functions_know_nothing_but_their_arguments(work):
    inner = work.__wrapped__
    assert inner.__closure__ is None
    assert inspect.signature(inner).return_annotation == "None"
    assert not any(p.default is not p.empty for p in inspect.signature(inner).parameters.values())


def test_a_function_that_closes_over_a_variable_can_not_be_marked():
    size = 3

    def closing(into: torch.Tensor) -> None:
        into.add_(size)

    with pytest.raises(TypeError, match="closing closes over variables"):
        repeats(closing)
    assert closing not in REPEATED


def _nothing(*things) -> None:
    pass


def test_functions_and_the_modes_of_autograd_are_told_apart():
    def other(*things) -> None:
        pass

    assert key_of(_nothing, 1) != key_of(other, 1)
    with torch.no_grad():
        without = key_of(_nothing, 1)
    assert without != key_of(_nothing, 1)


def test_numbers_of_different_types_are_told_apart():
    assert len({key_of(_nothing, value) for value in (1, 1.0, True, "1", None)}) == 5


@dataclass
class Mutable:
    size: int


@pytest.mark.parametrize(
    "value",
    [Mutable(3), {3}, object(), lambda: 3, [Mutable(3)]],
    ids=["mutable", "set", "object", "function", "list of mutables"],
)
def test_what_can_not_be_described_is_an_error_that_names_the_argument(value):
    def work(tensor, thing) -> None:
        pass

    with pytest.raises(TypeError, match="in argument 'thing' can't be part of a key"):
        key_of(work, TENSOR, value)


class _Trace(TorchDispatchMode):
    """Notes each operator and the shapes of what it makes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = out if isinstance(out, tuple | list) else (out,)
        shapes = [(t.shape, t.stride(), t.dtype) for t in made if isinstance(t, torch.Tensor)]
        self.seen.append((func, shapes))
        return out


@contextmanager
def _comparing(met):
    """Check that work of a key runs the operators that it ran the first time."""
    trace, known = _Trace(), {}

    def follow(key, work, place):
        begin = len(trace.seen)
        work()
        assert trace.seen[begin:] == known.setdefault(key, trace.seen[begin:]), key[0].__qualname__
        met.add(key[0])

    with trace, followed_by(follow):
        yield


SWITCHES = [
    {"attention": "lsh,local"},
    {"attention": "lsh,memory_efficient", "residual": "standard", "ff_chunks": 2},
    {"attention": "lsh", "look_back": "ring", "count_duplicates": False, "dropout": 0.2},
    {"attention": "lsh", "attend_across_buckets": True, "look_back": "ring", "causal": False},
    {"attention": "lsh", "lsh_kernel": "eager", "streams": "float", "dtype": "float32"},
    {"attention": "memory_efficient,full", "ff_chunks": 3,
     "residual": "checkpointed", "parameter_offload": "cpu"},
    {"attention": "memory_efficient", "causal": False, "shared_qk": True, "dtype": "bfloat16"},
]  # fmt: skip


def test_work_of_equal_keys_makes_equal_tensors():
    met = set()
    for switches in SWITCHES:
        model = small_model(**switches, n_layers=2, n_hashes=2, n_heads=2)
        tokens, targets = batch(model, 1, 137)
        with _comparing(met):
            model.loss(tokens, targets, tokens > 3).backward()
            model.loss(tokens[:, :40], targets[:, :40]).backward()
        layer = attention_layer(model.config)
        with _comparing(met):
            x_BLM = torch.randn(2, 50, 16, dtype=layer.layer.norm.weight.dtype)
            layer(x_BLM.requires_grad_()).sum().backward()
    assert met == {work.__wrapped__ for work in REPEATED}
