"""What convolutions, LSTM layers and normalisations hold inside on the CPU: asked of the kernels.

oneDNN reorders operands and keeps scratch memory by shape, instruction set and number of threads,
which nothing tells in advance. So the operator itself is run once on tensors of the same layout,
and the allocator's events say what it took. A large operator is run on two smaller batches, and
what it holds is taken to grow with the batch as it does between those.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from reformer_bench.measure.allocator.cpu import record_cpu_allocations

_aten = torch.ops.aten

_MOST_ELEMENTS = 2**21
_MOST_MULTIPLICATIONS = 2**28
"""Operators up to these sizes are run as they are, which takes milliseconds."""


@dataclass(frozen=True)
class _Layout:
    """What decides how a kernel treats a tensor: sizes, strides and dtype."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    def cut(self, dim: int, size: int) -> _Layout:
        """Return the layout with another size in one dimension, as dense as before."""
        sizes = (*self.sizes[:dim], size, *self.sizes[dim + 1 :])
        step = self.strides[dim]
        strides = tuple(
            s // self.sizes[dim] * size if s > step and s % self.sizes[dim] == 0 else s
            for s in self.strides
        )
        return _Layout(sizes, strides, self.dtype)

    def tensor(self) -> Tensor:
        """Return a tensor of zeros, so that values that are indices or counts are allowed ones."""
        reach = 1 + sum((n - 1) * step for n, step in zip(self.sizes, self.strides, strict=True))
        return torch.zeros(max(0, reach), dtype=self.dtype).as_strided(self.sizes, self.strides)


def _frozen(value: Any) -> Any:
    """Return an argument as what can be hashed and made again."""
    if isinstance(value, Tensor):
        return _Layout(tuple(value.shape), value.stride(), value.dtype)
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _made(value: Any) -> Any:
    if isinstance(value, _Layout):
        return value.tensor()
    return list(map(_made, value)) if isinstance(value, tuple) else value


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [x for item in value for x in _tensors(item)] if isinstance(value, tuple | list) else []


@functools.cache
def _held_in_run(
    operator: Any, args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...], _: Hashable
) -> tuple[int, tuple[int, ...]]:
    """Run an operator, and return the most bytes that it held with its results, and the bytes of
    each result. The last argument is whatever else decides them."""
    with _disable_current_modes(), torch.random.fork_rng(devices=()):
        given, named = [_made(value) for value in args], {n: _made(v) for n, v in kwargs}
        if operator is _RNN_BACKWARD:
            given[-1] = _workspace(given)

        def run() -> Any:
            # An LSTM layer has a workspace only where gradients are recorded.
            if operator is _RNN:
                return operator(*given, **named)
            with torch.no_grad():
                return operator(*given, **named)

        with torch.enable_grad():
            run()  # What is made once only, with the first call, is not the operator's.
            with record_cpu_allocations() as recording, recording.phase("forward"):
                results = run()
        peak = recording.timeline.peak_of_step(0)
        sizes = tuple(x.untyped_storage().nbytes() for x in _tensors(results))
        return (0 if peak is None else peak.allocated_bytes), sizes


def _workspace(args: list[Any]) -> Tensor:
    """Return the workspace that the forward pass leaves for these arguments of the backward."""
    x, w0, w1, w2, w3, hx, cx = args[:7]
    reverse, mode, hidden, layers, biases, train, bidirectional, sizes, batch_first = args[13:22]
    with torch.enable_grad():
        out = _RNN(
            *(x, w0, w1, w2, w3, hx, cx, reverse, sizes, mode, hidden, layers, biases),
            *(bidirectional, batch_first, train),
        )
    return out[3]  # type: ignore[no-any-return]


_RNN = _aten.mkldnn_rnn_layer.default
_RNN_BACKWARD = _aten.mkldnn_rnn_layer_backward.default


def _asked(operator: Any, places: tuple[int, ...], dim: int = 0) -> Callable[..., int]:
    """Return the formula of an operator whose arguments at ``places`` have the batch in ``dim``."""

    def formula(out: Any, /, *args: Any, **kwargs: Any) -> int:
        made = sum(x.numel() * x.element_size() for x in _tensors(out))
        return max(0, _peak(operator, places, dim, args, kwargs, out) - made)

    return formula


def _peak(
    operator: Any, places: tuple[int, ...], dim: int, args: Any, kwargs: Any, out: Any
) -> int:
    frozen = tuple(map(_frozen, args))
    named = tuple((name, _frozen(value)) for name, value in kwargs.items())
    state = (torch.get_num_threads(), torch.backends.mkldnn.enabled)
    whole = args[places[0]].shape[dim] if args[places[0]].dim() > dim else 1
    cost = _cost(args, out)
    if cost <= 1 or whole < 3:
        return _held_in_run(operator, frozen, named, state)[0]

    def run(count: int) -> int:
        cut = [x.cut(dim, count) if i in places else x for i, x in enumerate(frozen)]
        return _held_in_run(operator, tuple(cut), named, state)[0]

    small = min(max(1, int(whole / cost / 2)), whole // 2)
    low, high = run(small), run(2 * small)
    return max(high, high + math.ceil((high - low) * (whole - 2 * small) / small))


def _cost(args: Any, out: Any) -> float:
    """Return how many times larger than what is run as it is an operator is."""
    tensors = [*_tensors(out), *_tensors(args)]
    elements = max((x.numel() for x in tensors), default=0)
    kernels = [x.numel() // max(1, x.shape[0]) for x in _tensors(args) if x.dim() >= 3]
    depth = min(kernels, default=1)
    return max(elements / _MOST_ELEMENTS, elements * depth / _MOST_MULTIPLICATIONS)


def completed(operator: Any, out: Any, args: tuple[Any, ...]) -> Any:
    """Return what an LSTM layer returns on the CPU (mkldnn/RNN.cpp): the workspace, which fake
    tensors leave empty, with the bytes that oneDNN keeps in it for the backward pass, and the
    gradients of the two biases as two tensors. Other operators' results are returned as they are.
    """
    if operator is _RNN and isinstance(out[3], Tensor):
        state = (torch.get_num_threads(), torch.backends.mkldnn.enabled)
        sizes = _held_in_run(operator, tuple(map(_frozen, args)), (), state)[1]
        out[3].untyped_storage().resize_(sizes[3])
    if operator is _RNN_BACKWARD and out[3] is out[4]:
        return (*out[:4], torch.empty_like(out[3]), *out[5:])
    return out


def _group_norm_backward(out: Any, /, dy: Tensor, x: Tensor, *args: Any) -> int:
    """Count the sums of dy · x and of dy for each sample and channel
    (group_norm_kernel.cpp, GroupNormBackwardKernelImplInternal).
    """
    samples, channels = args[3:5]
    wide = 4 if x.dtype in (torch.bfloat16, torch.float16) else x.element_size()
    return int(2 * samples * channels * wide)


NN_FORMULAS: dict[Any, Callable[..., int]] = {
    _aten.convolution: _asked(_aten.convolution.default, (0,)),
    _aten.convolution_backward: _asked(_aten.convolution_backward.default, (0, 1)),
    _aten.native_batch_norm: _asked(_aten.native_batch_norm.default, (0,)),
    _aten.native_batch_norm_backward: _asked(_aten.native_batch_norm_backward.default, (0, 1)),
    _aten.native_group_norm_backward: _group_norm_backward,
    _aten.mse_loss_backward: _asked(_aten.mse_loss_backward.default, (1, 2)),
    _aten.smooth_l1_loss_backward: _asked(_aten.smooth_l1_loss_backward.default, (1, 2)),
    _aten.col2im: _asked(_aten.col2im.default, (0,)),
    _aten.max_pool2d_with_indices: _asked(_aten.max_pool2d_with_indices.default, (0,)),
    _aten.upsample_nearest1d: _asked(_aten.upsample_nearest1d.default, (0,)),
    _aten.upsample_nearest2d: _asked(_aten.upsample_nearest2d.default, (0,)),
    _aten.upsample_nearest3d: _asked(_aten.upsample_nearest3d.default, (0,)),
    _aten.upsample_linear1d: _asked(_aten.upsample_linear1d.default, (0,)),
    _aten.upsample_bilinear2d: _asked(_aten.upsample_bilinear2d.default, (0,)),
    _aten.upsample_bicubic2d: _asked(_aten.upsample_bicubic2d.default, (0,)),
    _aten.upsample_trilinear3d: _asked(_aten.upsample_trilinear3d.default, (0,)),
    _aten.im2col: _asked(_aten.im2col.default, (0,)),
    _RNN.overloadpacket: lambda out, /, *args, **kwargs: _layer_bytes(_RNN, out, args),
    _RNN_BACKWARD.overloadpacket: lambda out, /, *args, **kwargs: _layer_bytes(
        _RNN_BACKWARD, out, args
    ),
}
"""For each operator the function that counts what it holds besides its results."""


def _layer_bytes(operator: Any, out: Any, args: tuple[Any, ...]) -> int:
    """Count what one layer and direction of an LSTM holds besides its results and workspace."""
    given = args if operator is _RNN else (*args[:-1], None)
    state = (torch.get_num_threads(), torch.backends.mkldnn.enabled)
    peak = _held_in_run(operator, tuple(map(_frozen, given)), (), state)[0]
    return max(0, peak - sum(x.untyped_storage().nbytes() for x in _tensors(out)))
