"""How a model is trained and how it is evaluated: switches that belong to no model."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from reformer_bench.schema.errors import did_you_mean

OPTIMIZERS: Final = {
    "adadelta": "Adadelta",
    "adafactor": "Adafactor",
    "adagrad": "Adagrad",
    "adam": "Adam",
    "adamax": "Adamax",
    "adamw": "AdamW",
    "asgd": "ASGD",
    "muon": "Muon",
    "nadam": "NAdam",
    "radam": "RAdam",
    "rmsprop": "RMSprop",
    "rprop": "Rprop",
    "sgd": "SGD",
}
"""The optimizers of torch.optim that a step can end with, by their names in lower case.

LBFGS runs the model inside its own step, and SparseAdam takes sparse gradients only: they are left
out."""


def _known_optimizer(name: Any) -> Any:
    """Return an optimizer's name in lower case; ValueError for one that isn't there."""
    if not isinstance(name, str):
        return name
    lower = name.lower()
    if lower != "none" and lower not in OPTIMIZERS:
        names = [*OPTIMIZERS.values(), "none"]
        raise ValueError(
            f"not an optimizer{did_you_mean(name, names)} (allowed: {', '.join(names)})"
        )
    return lower


Optimizer = Annotated[str, BeforeValidator(_known_optimizer)]
"""The name of an optimizer of torch.optim, in any case, or ``none``."""


def _as_patterns(value: Any) -> Any:
    """Read patterns from a text with commas, or a list; ``none`` stands for no pattern."""
    if isinstance(value, str):
        parts = tuple(part.strip() for part in value.split(",") if part.strip())
        return () if parts == ("none",) else parts
    return value


class _Switches(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @property
    def is_default(self) -> bool:
        """Whether every switch is as it is unless set."""
        return self == type(self)()


class Training(_Switches):
    """How training runs, for any model; beside the optimizer's name, which the case has."""

    optimizer_args: dict[str, JsonValue] = Field(default_factory=dict)
    """The optimizer's own arguments by torch's names, as ``weight_decay`` or ``foreach``."""
    autocast: Literal["none", "bfloat16", "float16"] = "none"
    """The dtype that ``torch.autocast`` runs the forward pass in; gradients are not scaled."""
    gradient_checkpointing: Annotated[tuple[str, ...], BeforeValidator(_as_patterns)] = ()
    """What is run again in the backward pass instead of being kept: ``model`` calls the model's own
    method; otherwise patterns of module names, as ``model.layers.*``."""
    activation_offload: bool = False
    """Whether what the backward pass needs waits in the host's memory
    (torch.autograd.graph.save_on_cpu)."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """How many batches, one after another, add to the gradients before the optimizer's step."""
    loss: Literal["own", "mean", "none"] = "own"
    """``own``: the model's own loss; ``mean``: the mean of its output; ``none``: no loss, the
    backward pass begins at the output with a gradient of ones."""
    compile: bool = False
    """Whether the module runs through torch.compile."""

    @model_validator(mode="after")
    def _one_way(self) -> Training:
        patterns = self.gradient_checkpointing
        if "model" in patterns and len(patterns) > 1:
            raise ValueError(
                "gradient_checkpointing is 'model' (its own method) or patterns of module names, "
                "not both"
            )
        return self


class Evaluation(_Switches):
    """How inference runs, in the workload ``eval``."""

    cache: bool = False
    """Whether keys and values of all layers are kept for later tokens (``use_cache``)."""


class TrainTable(Training):
    """What a suite's ``train`` tables set: the switches of Training, and the optimizer's name."""

    optimizer: Optimizer | None = None
    """None stands for the suite's ``optimizer``."""
