"""The builders of ``tests.builders``, by the names that these tests know."""

from tests.builders import LENGTHS, as_predicted, environment, memory, record, sweep, timing

__all__ = ["LENGTHS", "as_predicted", "environment", "memory", "record", "sweep", "timing"]
