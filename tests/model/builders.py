"""The builders of ``tests.models``, by the names that these tests know."""

from tests.models import (
    SMALL,
    batch,
    largest_difference,
    loss_and_grads,
    settings,
    small_config,
    small_model,
)

__all__ = [
    "SMALL",
    "batch",
    "largest_difference",
    "loss_and_grads",
    "settings",
    "small_config",
    "small_model",
]
