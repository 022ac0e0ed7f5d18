"""Names that report and cli.options import until they ask the record itself."""

from reformer_bench.schema.record import Record


def is_measured(record: Record) -> bool:
    """Whether the allocator's figures come from a real run, not from fake tensors."""
    return record.is_measured


def activation_bytes(record: Record) -> float | None:
    """Return the peak less its fixed bytes."""
    return record.activation_bytes


def step_ms(record: Record) -> float | None:
    """Return the median time of a warm step."""
    return record.step_ms


def cold_rate(record: Record) -> float | None:
    """Return the throughput of a case that made a cold step only."""
    return record.cold_tokens_per_second
