"""The builders of ``tests.builders``, by the names that these tests know."""

from tests.builders import TINY as SMALL
from tests.builders import case, environment, order, plan, prediction, suite
from tests.builders import record_of as record
from tests.builders import run_info as info

__all__ = ["SMALL", "case", "environment", "info", "order", "plan", "prediction", "record", "suite"]
