"""The builders of ``tests.builders``, by the names that these tests know."""

from tests.builders import TINY as SMALL
from tests.builders import case, environment, order, prediction, suite
from tests.builders import record_of as record

__all__ = ["SMALL", "case", "environment", "order", "prediction", "record", "suite"]
