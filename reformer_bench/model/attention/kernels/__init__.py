"""What computes attention inside chunks: three kernels behind one interface, chosen by name."""

from reformer_bench.model.attention.kernels.rounds import ChunkKernel
from reformer_bench.model.attention.kernels.select import chosen_kernel, why_not_triton

__all__ = ["ChunkKernel", "chosen_kernel", "why_not_triton"]
