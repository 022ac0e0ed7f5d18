"""What convolutions, LSTM layers and normalisations hold inside on the CPU: asked of the kernels.

oneDNN reorders operands and keeps scratch memory by shape, instruction set and number of threads,
which nothing tells in advance. So the operator itself is run once on tensors of the same layout,
and the allocator's events say what it took. A large operator is run on two smaller batches, and
what it holds is taken to grow with the batch as it does between those.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from reformer_bench.measure.fake.operators_cpu_parts import InternalBytes
from reformer_bench.measure.fake.stand_in import (
    Held,
    State,
    described,
    held_in_run,
    named_arguments,
    tensors_in,
)

_aten = torch.ops.aten

_MOST_ELEMENTS = 2**21
_MOST_MULTIPLICATIONS = 2**28
"""Operators up to these sizes are run as they are, which takes milliseconds."""


_RNN = _aten.mkldnn_rnn_layer.default
_RNN_BACKWARD = _aten.mkldnn_rnn_layer_backward.default


def _with_workspace(args: list[Any]) -> list[Any]:
    """Return the arguments of an LSTM layer's backward pass with the workspace that its forward
    pass leaves for them, in place of the last.
    """
    x, w0, w1, w2, w3, hx, cx = args[:7]
    reverse, mode, hidden, layers, biases, train, bidirectional, sizes, batch_first = args[13:22]
    with torch.enable_grad():
        out = _RNN(
            *(x, w0, w1, w2, w3, hx, cx, reverse, sizes, mode, hidden, layers, biases),
            *(bidirectional, batch_first, train),
        )
    return [*args[:-1], out[3]]


def _asked(operator: Any, places: tuple[int, ...]) -> InternalBytes:
    """Return the formula of an operator whose arguments at ``places`` have a batch in their first
    dimension.
    """

    def formula(out: Any, /, *args: Any, **kwargs: Any) -> int:
        return _besides(out, _peak(operator, places, args, kwargs, out))

    return formula


def asked_of_batch(operator: Any, batch_from: int) -> InternalBytes:
    """Return the formula of an operator, or of the overload that its arguments choose, whose first
    dimension is a batch where the first argument has at least ``batch_from`` dimensions, and every
    tensor has it. Where that isn't so, the operator is run at its full size.
    """

    def formula(out: Any, /, *args: Any, **kwargs: Any) -> int:
        kwargs.pop("generator", None)  # Trials don't draw from the user's own generator.
        places = tuple(i for i, x in enumerate(args) if isinstance(x, Tensor))
        dims = {args[i].dim() for i in places}
        rows = {args[i].shape[0] for i in places if args[i].dim()}
        is_batch = min(dims) >= batch_from and len(dims) == len(rows) == 1
        return _besides(out, _peak(operator, places if is_batch else (), args, kwargs, out))

    return formula


def _besides(out: Any, peak_bytes: int) -> int:
    """Return what of a peak is not the results'."""
    return max(0, peak_bytes - sum(x.numel() * x.element_size() for x in tensors_in(out)))


def _peak(operator: Any, places: tuple[int, ...], args: Any, kwargs: Any, out: Any) -> int:
    """Return the most bytes that an operator holds with its results; where ``places`` say which
    arguments have a batch, a large one is extrapolated from smaller batches.
    """
    whole = args[places[0]].shape[0] if places and args[places[0]].dim() else 1
    cost, layouts, named = _cost(args, out), described(args), named_arguments(kwargs)

    def run(layouts: tuple[Any, ...]) -> int:
        return held_in_run(operator, layouts, named, State.now()).peak_bytes

    if cost <= 1 or whole < 3:
        return run(layouts)

    def run_batch(count: int) -> int:
        return run(tuple(x.cut(0, count) if i in places else x for i, x in enumerate(layouts)))

    small = min(max(1, int(whole / cost / 2)), whole // 2)
    low, high = run_batch(small), run_batch(2 * small)
    return max(high, high + math.ceil((high - low) * (whole - 2 * small) / small))


def _cost(args: Any, out: Any) -> float:
    """Return how many times larger than what is run as it is an operator is."""
    tensors = [*tensors_in(out), *tensors_in(args)]
    elements = max((x.numel() for x in tensors), default=0)
    kernels = [x.numel() // max(1, x.shape[0]) for x in tensors_in(args) if x.dim() >= 3]
    depth = min(kernels, default=1)
    return max(elements / _MOST_ELEMENTS, elements * depth / _MOST_MULTIPLICATIONS)


def completed(operator: Any, out: Any, args: tuple[Any, ...]) -> Any:
    """Return what an LSTM layer returns on the CPU (mkldnn/RNN.cpp): the workspace, which fake
    tensors leave empty, with the bytes that oneDNN keeps in it for the backward pass, and the
    gradients of the two biases as two tensors. Other operators' results are returned as they are.
    """
    if operator is _RNN and isinstance(out[3], Tensor):
        sizes = _layer(_RNN, args).result_bytes
        # Where no gradients are recorded, there is no workspace (mkldnn_rnn_layer).
        out[3].untyped_storage().resize_(sizes[3] if len(sizes) > 3 else 0)
    if operator is _RNN_BACKWARD and out[3] is out[4]:
        return (*out[:4], torch.empty_like(out[3]), *out[5:])
    return out


def _layer(operator: Any, args: tuple[Any, ...]) -> Held:
    """Run one layer and direction of an LSTM, forward or backward."""
    state = State.now()
    if operator is _RNN:
        # It has a workspace only where gradients are recorded.
        recorded = state.records_gradients
        return held_in_run(_RNN, described(args), (), state, with_gradients=recorded)
    given = (*described(args[:-1]), None)
    return held_in_run(_RNN_BACKWARD, given, (), state, prepare=_with_workspace)


def _of_layer(operator: Any) -> InternalBytes:
    def formula(out: Any, /, *args: Any) -> int:
        """Count what one layer and direction holds besides its results and workspace."""
        made = sum(x.untyped_storage().nbytes() for x in tensors_in(out))
        return max(0, _layer(operator, args).peak_bytes - made)

    return formula


def _group_norm_backward(out: Any, /, dy: Tensor, x: Tensor, *args: Any) -> int:
    """Count two numbers for each sample and channel, as observed: sums of dy · x and of dy."""
    samples, channels = args[3:5]
    wide = 4 if x.dtype in (torch.bfloat16, torch.float16) else x.element_size()
    return int(2 * samples * channels * wide)


NN_FORMULAS: dict[Any, InternalBytes] = {
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
    _RNN.overloadpacket: _of_layer(_RNN),
    _RNN_BACKWARD.overloadpacket: _of_layer(_RNN_BACKWARD),
}
"""For each operator the function that counts what it holds besides its results."""
