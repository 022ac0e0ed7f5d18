"""ReformerLM: a language model assembled from a ModelConfig.

B batch, L length, M model width, V vocabulary.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from reformer_bench.model.attention.kernels.eager import chosen_kernel
from reformer_bench.model.embedding import Embedding
from reformer_bench.model.head import OutputHead, chunked_loss
from reformer_bench.model.layer import Layer
from reformer_bench.model.stack.parameters import ParameterFeed
from reformer_bench.model.stack.residual import (
    checkpointed_stack,
    partwise_residual,
    standard_stack,
)
from reformer_bench.model.stack.reversible import (
    OnReconstructed,
    reversible_loss,
    reversible_stack,
    watch_for,
)
from reformer_bench.model.stack.streams import RangeWatch
from reformer_bench.model.sublayer import Step, Tensors, draw_seed, dropout_scale, seeded_dropout
from reformer_bench.schema.model import Attention, ModelConfig, Residual

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def _parameter_dtype(config: ModelConfig) -> torch.dtype:
    """Return the dtype of parameters and streams; they are wide even under bfloat16."""
    return torch.float64 if config.dtype == "float64" else torch.float32


class ReformerLM(nn.Module):
    """A Transformer language model whose every memory technique is a switch of its config.

    Models whose switches don't change the mathematics have parameters of the same names and shapes,
    so that the state_dict of one loads into the other. A new model is on the CPU; ``place`` moves
    it.

    Args:
        config: Sizes and switches, for example ``preset("reformer", n_layers=6)``.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        compute = _DTYPES[config.dtype]
        self.embedding = Embedding(config)
        self.layers = nn.ModuleList(Layer(config, i, compute) for i in range(config.n_layers))
        self.output = OutputHead(config, compute)
        self.to(_parameter_dtype(config))
        self.exact = config.streams == "fixed"
        self.feed = ParameterFeed(torch.device("cpu"), offload=config.parameter_offload == "cpu")
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
        device = torch.device(device)
        offload = self.config.parameter_offload == "cpu"
        self.embedding.to(device)
        self.output.to(device)
        if not offload:
            self.layers.to(device)
        elif host is not None:
            self.layers.to(host)
        elif device.type == "cuda":
            for parameter in self.layers.parameters():
                parameter.data = parameter.data.pin_memory()
        self.feed = ParameterFeed(device, offload=offload, host=host)
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
        """
        step = self._step(tokens_BL, valid_BL)
        x_BLM = self._embedded(tokens_BL, step)
        if self.config.residual is Residual.REVERSIBLE:
            watch = self._new_watch()
            streams = reversible_stack(self._layers(), x_BLM, step, self.feed, watch)
            self._watched_by(watch)
            return cast(Tensor, self.output(self.output.merge(list(streams))))
        return cast(Tensor, self.output(self._residual(x_BLM, step)))

    def loss(self, tokens_BL: Tensor, targets_BL: Tensor, valid_BL: Tensor | None = None) -> Tensor:
        """Compute the mean cross-entropy of predicting the targets.

        With ``loss_chunks`` > 1, and in every reversible model, logits exist for only one of
        ``loss_chunks`` pieces of the sequence at a time. The loss of a reversible model can be
        differentiated once, because its backward pass undoes the activations in place.

        Args:
            tokens_BL: Token numbers, int64 of shape [batch, length].
            targets_BL: What each token should predict, of the same dtype and shape; −100 takes no
                part.
            valid_BL: False at padding, bool of shape [batch, length]; None stands for no padding.

        Returns:
            The mean over the targets that take part, a scalar.

        Raises:
            ValueError: As in ``forward``, or the targets have another shape than the tokens.
        """
        step = self._step(tokens_BL, valid_BL)
        if targets_BL.shape != tokens_BL.shape:
            raise ValueError(
                f"targets have shape {list(targets_BL.shape)}, expected that of the tokens, "
                f"{list(tokens_BL.shape)}"
            )
        if self.config.residual is Residual.REVERSIBLE:
            watch = self._new_watch()
            loss = reversible_loss(self, step, watch, tokens_BL, targets_BL)
            self._watched_by(watch)
            return loss
        x_BLM = self._residual(self._embedded(tokens_BL, step), step)
        if self.config.loss_chunks > 1:
            return chunked_loss(self.output, x_BLM, targets_BL)
        logits = self.output(x_BLM)
        return functional.cross_entropy(logits.flatten(0, 1), targets_BL.flatten())

    def check_streams(self) -> None:
        """Read what the watch over the fixed-point streams of the last pass saw.

        A GPU's verdict is read by this call or when the next pass begins, so that no pass waits
        for the host; till then the loss (or the logits) and the gradients are NaN. On the CPU it
        is read at the end of each pass. Raises StreamRangeError, naming the layer.
        """
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.check()

    def settings(self) -> dict[str, str]:
        """Say which kernel ``auto`` has become on the device that the model is on."""
        found = {}
        for layer in self._layers():
            attention = layer.attention
            if attention.kind in (Attention.LSH, Attention.LOCAL):
                device = self.embedding.tokens.weight.device
                kernel, _ = chosen_kernel(attention.settings, device, attention.compute_dtype)
                found[f"{attention.kind}_kernel"] = kernel.value
        return found

    def embed(self, params: Tensors, tokens_BL: Tensor, step: Step) -> Tensor:
        """Return the embedded tokens, with dropout, [B, L, M], outside autograd."""
        x_BLM = self.embedding.lookup(params, tokens_BL)
        if self._dropout(step):
            x_BLM.mul_(dropout_scale(x_BLM, self._dropout(step), self._embedding_seed(step)))
        return x_BLM

    def embed_backward(
        self, like: Tensor, tokens_BL: Tensor, dx_BLM: Tensor, step: Step
    ) -> list[Tensor]:
        """Return the gradients of the embedding's parameters, in their order; ``dx`` may be
        overwritten.
        """
        if self._dropout(step):
            dx_BLM.mul_(dropout_scale(dx_BLM, self._dropout(step), self._embedding_seed(step)))
        params = {name: p.detach() for name, p in self.embedding.named_parameters()}
        return list(self.embedding.lookup_backward(params, tokens_BL, dx_BLM).values())

    def _embedded(self, tokens_BL: Tensor, step: Step) -> Tensor:
        """Return the embedded tokens, with dropout, differentiably."""
        x_BLM = self.embedding(tokens_BL)
        return seeded_dropout(x_BLM, self._dropout(step), self._embedding_seed(step))

    def _residual(self, x_BLM: Tensor, step: Step) -> Tensor:
        if self.config.residual is Residual.STANDARD:
            return standard_stack(self._layers(), x_BLM, step, self.feed)
        offload = self.config.parameter_offload == "cpu"
        return checkpointed_stack(self._layers(), x_BLM, step, self.feed, offload=offload)

    def _new_watch(self) -> RangeWatch | None:
        """What is to watch the streams of the pass that begins."""
        return watch_for(self._layers(), self.embedding.tokens.weight.detach(), exact=self.exact)

    def _watched_by(self, watch: RangeWatch | None) -> None:
        """The pass has ended."""
        self._watch = watch
        if self.embedding.tokens.weight.device.type == "cpu":
            self.check_streams()

    def _layers(self) -> list[Layer]:
        return [cast(Layer, layer) for layer in self.layers]

    def _dropout(self, step: Step) -> float:
        return self.config.dropout if step.training else 0.0

    def _embedding_seed(self, step: Step) -> int:
        return step.seed_for(self.config.n_layers, 0)

    def _step(self, tokens_BL: Tensor, valid_BL: Tensor | None) -> Step:
        """Check the pass before and the input, and draw the step's seed."""
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
        return Step(batch, length, draw_seed(), valid_BL, self.training)


class AttentionLayer(nn.Module):
    """One attention sublayer with its residual connection: y = x + Attention(x)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.layer = Layer(config, 0, _DTYPES[config.dtype]).attention
        self.to(_parameter_dtype(config))
        self.feed = ParameterFeed(torch.device("cpu"), offload=False)

    def forward(self, x_BLM: Tensor) -> Tensor:
        """Return y [B, L, M] of x [B, L, M]; unless residual is ``standard``, the backward pass
        recomputes one group of heads at a time. Raises ValueError for an x of another dtype than
        the parameters'.
        """
        wanted = self.layer.norm.weight.dtype
        if x_BLM.dtype != wanted:
            raise ValueError(f"x has dtype {x_BLM.dtype}, expected the parameters', {wanted}")
        step = Step(x_BLM.shape[0], x_BLM.shape[1], draw_seed(), None, self.training)
        if self.config.residual is Residual.STANDARD:
            return x_BLM + self.layer(x_BLM, step)
        return partwise_residual(self.layer, x_BLM, step, self.feed)


def attention_layer(config: ModelConfig) -> AttentionLayer:
    """One attention sublayer of a model: what Table 1 of the paper is about."""
    return AttentionLayer(config)
