"""ReformerLM: a language model assembled from a ModelConfig; and one attention sublayer of it.

B batch, L length, M model width, V vocabulary.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from reformer_bench.model.attention.kernels import chosen_kernel, why_not_triton
from reformer_bench.model.embedding import Embedding
from reformer_bench.model.head import OutputHead, chunked_loss
from reformer_bench.model.layer import Layer
from reformer_bench.model.stack.parameters import CPU, ParameterLoader
from reformer_bench.model.stack.residual import (
    checkpointed_stack,
    recomputed_residual,
    standard_stack,
)
from reformer_bench.model.stack.reversible import (
    OnReconstructed,
    reversible_loss,
    reversible_stack,
    watch_for,
)
from reformer_bench.model.stack.streams import RangeWatch
from reformer_bench.model.sublayer import (
    PassContext,
    RandomUse,
    dropout_scale,
    seeded_dropout,
)
from reformer_bench.model.tensors import Tensors, compute_dtype, detached_parameters
from reformer_bench.schema.model import Attention, LshKernel, ModelConfig, Residual


def _parameter_dtype(config: ModelConfig) -> torch.dtype:
    """Return the dtype of parameters and streams; they are wide even under bfloat16."""
    return torch.float64 if config.dtype == "float64" else torch.float32


class ReformerLM(nn.Module):
    """A Transformer language model whose every memory technique is a switch of its config.

    Models whose switches don't change the mathematics have parameters of the same names and shapes,
    so that the state_dict of one loads into the other. A new model is on the CPU, with float32
    parameters (float64 where the config's dtype is that); ``place`` moves it.

    Args:
        config: Sizes and switches, for example ``preset("reformer", n_layers=6)``.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dtype = compute_dtype(config)
        self.embedding = Embedding(config)
        self.layers = nn.ModuleList(Layer(config, i, dtype) for i in range(config.n_layers))
        self.output = OutputHead(config, dtype)
        self.to(_parameter_dtype(config))
        self.loader = ParameterLoader(offload=config.parameter_offload == "cpu")
        self.on_reconstructed: OnReconstructed | None = None
        """Called at the end of a reversible backward pass with the streams as undone."""
        self._watch: RangeWatch | None = None
        """What watched the streams of the last pass, until it has been read."""

    def place(self, device: torch.device | str, *, host: torch.device | None = None) -> ReformerLM:
        """Move the model to a device.

        With ``parameter_offload`` the parameters of the layers stay in CPU memory, which is pinned
        where the device is a CUDA one.

        Args:
            device: Where the model computes.
            host: What stands for the CPU's memory, where that isn't the device ``cpu``.

        Returns:
            The model itself.
        """
        device, offload = torch.device(device), self.loader.offload
        self.embedding.to(device)
        self.output.to(device)
        if not offload:
            self.layers.to(device)
        elif host is not None:
            self.layers.to(host)
        elif device.type == "cuda":
            for parameter in self.layers.parameters():
                parameter.data = parameter.data.pin_memory()
        self.loader = ParameterLoader(device, offload=offload, host=CPU if host is None else host)
        return self

    def forward(self, tokens_BL: Tensor, valid_BL: Tensor | None = None) -> Tensor:
        """Compute the logits of every token.

        Args:
            tokens_BL: Token numbers, int64 of shape [batch, length].
            valid_BL: False at padding, bool of shape [batch, length]; no token attends to padding,
                and its logits mean nothing. None stands for no padding.

        Returns:
            Logits of shape [batch, length, vocab_size], in the dtype of the parameters.

        Raises:
            ValueError: Tokens or ``valid_BL`` have another shape or dtype, there are no tokens, or
                the sequence is longer than ``max_length``.
            StreamRangeError: The streams of a reversible model would hold a NaN or a number out of
                range (see ``check_streams``).
        """
        context = self._begin_pass(tokens_BL, valid_BL)
        x_BLM = self.embedded(tokens_BL, context)
        if self.config.residual is not Residual.REVERSIBLE:
            return cast(Tensor, self.output(self._residual(x_BLM, context)))
        watch = self._new_watch()
        streams = reversible_stack(self.stack_layers, x_BLM, context, self.loader, watch)
        self._keep_watch(watch)
        return cast(Tensor, self.output(self.output.merge(streams)))

    def loss(self, tokens_BL: Tensor, targets_BL: Tensor, valid_BL: Tensor | None = None) -> Tensor:
        """Compute the mean cross-entropy of predicting the targets.

        With ``loss_chunks`` > 1, and in every reversible model, logits exist for only one of
        ``loss_chunks`` slices of the rows at a time. The loss of a reversible model can be
        differentiated once, because its backward pass undoes the activations in place.

        Args:
            tokens_BL: Token numbers, int64 of shape [batch, length].
            targets_BL: What each token should predict, of the same dtype and shape; −100 takes no
                part.
            valid_BL: False at padding, bool of shape [batch, length]; None stands for no padding.

        Returns:
            The mean over the targets that take part, a scalar in the dtype of the parameters.

        Raises:
            ValueError: As in ``forward``, or the targets have another shape than the tokens.
            StreamRangeError: As in ``forward``.
        """
        context = self._begin_pass(tokens_BL, valid_BL)
        if targets_BL.shape != tokens_BL.shape:
            raise ValueError(
                f"targets have shape {list(targets_BL.shape)}, expected that of the tokens, "
                f"{list(tokens_BL.shape)}"
            )
        if self.config.residual is Residual.REVERSIBLE:
            watch = self._new_watch()
            loss = reversible_loss(self, context, watch, tokens_BL, targets_BL)
            self._keep_watch(watch)
            return loss
        x_BLM = self._residual(self.embedded(tokens_BL, context), context)
        if self.config.loss_chunks > 1:
            return chunked_loss(self.output, x_BLM, targets_BL)
        logits = self.output(x_BLM)
        return functional.cross_entropy(logits.flatten(0, 1), targets_BL.flatten())

    def check_streams(self) -> None:
        """Read what the watch over the fixed-point streams of the last pass saw.

        A GPU's verdict is read by this call or when the next pass begins, so that no pass waits
        for the host; till then the loss (or the logits) and the gradients are NaN. On the CPU it
        is read at the end of each pass.

        Raises:
            StreamRangeError: A NaN or a number out of range was put into a stream; the text names
                the layer.
        """
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.check()

    def settings(self) -> dict[str, str]:
        """Say which kernel ``auto`` has become on the device that the model is on."""
        found = {}
        for layer in self.stack_layers:
            attention = layer.attention
            if attention.kind in (Attention.LSH, Attention.LOCAL):
                device = self.embedding.tokens.weight.device
                name, _ = chosen_kernel(attention.settings, device, attention.compute_dtype)
                found[f"{attention.kind}_kernel"] = name.value
                reason = why_not_triton(attention.settings, device, attention.compute_dtype)
                if reason is not None and attention.settings.lsh_kernel is LshKernel.AUTO:
                    found[f"{attention.kind}_kernel_reason"] = reason
        return found

    @property
    def stack_layers(self) -> list[Layer]:
        """The layers, in order."""
        return [cast(Layer, layer) for layer in self.layers]

    def embed(self, params: Tensors, tokens_BL: Tensor, context: PassContext) -> Tensor:
        """Return the embedded tokens, with dropout, [B, L, M], outside autograd."""
        return self._drop_(self.embedding.lookup(params, tokens_BL), context)

    def embed_backward(
        self, tokens_BL: Tensor, dx_BLM: Tensor, context: PassContext
    ) -> list[Tensor]:
        """Return the gradients of the embedding's parameters, in their order; ``dx`` may be
        overwritten.
        """
        params = detached_parameters(self.embedding)
        dx_BLM = self._drop_(dx_BLM, context)
        return list(self.embedding.lookup_backward(params, tokens_BL, dx_BLM).values())

    def embedded(self, tokens_BL: Tensor, context: PassContext) -> Tensor:
        """Return the embedded tokens, with dropout, [B, L, M], differentiably."""
        x_BLM = self.embedding(tokens_BL)
        return seeded_dropout(x_BLM, self._dropout(context), self._dropout_seed(context))

    def _drop_(self, x_BLM: Tensor, context: PassContext) -> Tensor:
        """Drop features of the embedding or its gradient, in place."""
        if p := self._dropout(context):
            x_BLM.mul_(dropout_scale(x_BLM, p, self._dropout_seed(context)))
        return x_BLM

    def _dropout(self, context: PassContext) -> float:
        return self.config.dropout if context.training else 0.0

    def _dropout_seed(self, context: PassContext) -> int:
        return context.seed_for(self.config.n_layers, RandomUse.DROPOUT)

    def _residual(self, x_BLM: Tensor, context: PassContext) -> Tensor:
        standard = self.config.residual is Residual.STANDARD
        stack = standard_stack if standard else checkpointed_stack
        return stack(self.stack_layers, x_BLM, context, self.loader)

    def _new_watch(self) -> RangeWatch | None:
        """Return what is to watch the streams of the pass that begins; None where they are floats,
        in which a NaN or an infinity shows by itself.
        """
        if self.config.streams == "float":
            return None
        return watch_for(self.stack_layers, self.embedding.tokens.weight.detach())

    def _keep_watch(self, watch: RangeWatch | None) -> None:
        """Keep the watch of the pass that has ended, to be read when that makes nobody wait."""
        self._watch = watch
        if self.embedding.tokens.weight.device.type == "cpu":
            self.check_streams()

    def _begin_pass(self, tokens_BL: Tensor, valid_BL: Tensor | None) -> PassContext:
        """Check the pass before and the input, and draw the pass's seed."""
        self.check_streams()
        if tokens_BL.dim() != 2 or tokens_BL.dtype != torch.int64:
            raise ValueError(
                "tokens must be int64 of shape [batch, length], not "
                f"{tokens_BL.dtype} of shape {list(tokens_BL.shape)}"
            )
        batch, length = tokens_BL.shape
        if batch == 0 or length == 0:
            raise ValueError(f"tokens of shape {list(tokens_BL.shape)} are empty")
        if self.config.positions != "none" and length > self.config.max_length:
            raise ValueError(
                f"length {length} is beyond max_length = {self.config.max_length} of this model"
            )
        if valid_BL is not None and (
            valid_BL.shape != tokens_BL.shape or valid_BL.dtype != torch.bool
        ):
            raise ValueError(
                f"valid must be bool of shape {list(tokens_BL.shape)}, not "
                f"{valid_BL.dtype} of shape {list(valid_BL.shape)}"
            )
        return PassContext.begin(batch, length, valid_BL=valid_BL, training=self.training)


class AttentionLayer(nn.Module):
    """One attention sublayer with its residual connection: y = x + Attention(x)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.layer = Layer(config, 0, compute_dtype(config)).attention
        self.to(_parameter_dtype(config))
        self.loader = ParameterLoader(offload=False)

    def forward(self, x_BLM: Tensor) -> Tensor:
        """Compute y of x.

        Unless ``residual`` is ``standard``, the backward pass recomputes one group of heads at a
        time.

        Args:
            x_BLM: Activations of shape [batch, length, d_model], in the dtype of the parameters.

        Returns:
            y, of the same shape and dtype.

        Raises:
            ValueError: x has another dtype.
        """
        wanted = self.layer.norm.weight.dtype
        if x_BLM.dtype != wanted:
            raise ValueError(f"x has dtype {x_BLM.dtype}, expected the parameters', {wanted}")
        context = PassContext.begin(x_BLM.shape[0], x_BLM.shape[1], training=self.training)
        if self.config.residual is Residual.STANDARD:
            return x_BLM + cast(Tensor, self.layer(x_BLM, context))
        return recomputed_residual(self.layer, x_BLM, context, self.loader)


def attention_layer(config: ModelConfig) -> AttentionLayer:
    """Build one attention sublayer of a model: what Table 1 of the paper is about."""
    return AttentionLayer(config)
