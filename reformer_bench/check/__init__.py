"""The memory gate: a run compared with a baseline, case by case."""
