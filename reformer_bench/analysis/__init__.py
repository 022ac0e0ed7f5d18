"""Pure functions over records and data frames: no files, no devices, no torch."""

from reformer_bench.analysis.frames import breakdown_frame, case_frame
from reformer_bench.analysis.groups import Group, group_records
from reformer_bench.analysis.statistics import Quartiles, quartiles

__all__ = ["Group", "Quartiles", "breakdown_frame", "case_frame", "group_records", "quartiles"]
