"""CPU operators that were measured to hold nothing beside their results and arguments.

A test runs each on a small and on a large sample, with one thread and with two. Views are not
listed.
"""

from __future__ import annotations

from typing import Any

import torch

_NAMES = """
_local_scalar_dense lift_fresh lift lift_fresh_copy
embedding constant_pad_nd bernoulli bernoulli_ cauchy_ exponential_ geometric_ log_normal_ normal_
uniform_ random_ rand rand_like randint randint_like randn randn_like poisson _standard_gamma
arange empty empty_like empty_permuted empty_strided eye fill fill_ full full_like linspace
logspace new_empty new_empty_strided new_full new_ones new_zeros ones ones_like scalar_tensor
tril_indices triu_indices zero_ zeros zeros_like complex polar
addbmm addr dot vdot ger outer linalg_cross linalg_cholesky_ex linalg_lu_factor_ex
aminmax max min cummax cummin logcumsumexp topk mode norm trace std_mean var_mean
as_strided_scatter diagonal_scatter select_scatter slice_scatter diag_embed diagonal_backward
select_backward slice_backward
copy flip index_copy index_copy_ index_fill index_fill_ index_select masked_fill masked_fill_ put
take nonzero equal rot90 unsafe_split split_with_sizes_copy
diagonal_copy expand_copy narrow_copy unbind_copy unfold_copy unsqueeze_copy view_copy
_unsafe_view resize_ resize_as_ set_ tril_ triu_ squeeze_ transpose_ unsqueeze_ t_ swapaxes_
glu glu_backward hardshrink hardshrink_backward softshrink softshrink_backward log_sigmoid_forward
_prelu_kernel _prelu_kernel_backward rrelu_with_noise_backward
huber_loss_backward mse_loss_backward smooth_l1_loss_backward multi_margin_loss
multi_margin_loss_backward nll_loss_backward nll_loss2d_backward nll_loss2d_forward
pixel_shuffle pixel_unshuffle channel_shuffle block_diag frexp
_foreach_zero_ _foreach_copy_ _foreach_norm _fused_adam_ _fused_adamw_ _fused_sgd_ _fused_adagrad_
"""

HOLDS_NOTHING: frozenset[Any] = frozenset(
    getattr(torch.ops.aten, name) for name in _NAMES.split() if hasattr(torch.ops.aten, name)
)
