"""The lines under a table or plot: what the numbers are, and what they were measured on."""

from __future__ import annotations

from collections.abc import Iterable

from reformer_bench.claims.quantities import cold_rate
from reformer_bench.report.frames import Group, case_row, stopped
from reformer_bench.report.grid import foreseen_bytes
from reformer_bench.report.words import SOURCES, percent, row_name
from reformer_bench.schema.model import Attention
from reformer_bench.schema.record import Environment, Outcome

LARGE_SPREAD = 0.1
"""The interquartile range over the median from which on a table warns."""

_OPTIMIZERS = {"adam": "Adam's state", "adafactor": "Adafactor's state"}


def memory_note(group: Group) -> str:
    """Say whose peak it is and what it includes."""
    found = {r.memory.allocator.source for r in group.records if r.memory.allocator is not None}
    if not found:
        return "Peak: no case finished, so no peak was measured."
    who = " and ".join(SOURCES[source] for source in sorted(found))
    return f"Peak: the most bytes allocated in any phase, by {who}; {_included(group)}."


def throughput_note(group: Group) -> str:
    """Say what throughput is, and how far samples scatter where they scatter much."""
    note = (
        "Throughput: tokens of a step, divided by the median time of a warm step (not the first)."
    )
    if any(cold_rate(record) is not None for record in group.records):
        note += " Cold: the first step is the only one (on a CPU with the memory profiler on)."
    worst: tuple[float, str] | None = None
    for record in group.records:
        spread = case_row(record)["relative_iqr"]
        if record.outcome is Outcome.OK and spread is not None:
            where = f"{record.case.variant} at {row_name(group, record.case.length)}"
            worst = max(worst or (0.0, ""), (spread, where))
    if worst is None or worst[0] < LARGE_SPREAD:
        return note
    return (
        f"{note} Samples scatter: the interquartile range reaches {percent(worst[0])} of the "
        f"median ({worst[1]})."
    )


def stop_note(group: Group) -> str | None:
    """Say what the words in cells of unfinished cases mean; None where all finished."""
    outcomes = {record.outcome for record in group.records}
    foreseen = any(foreseen_bytes(record) is not None for record in group.records)
    parts = []
    if outcomes & {Outcome.DEVICE_OOM, Outcome.HOST_OOM}:
        parts.append("out of memory: the allocation failed")
    if Outcome.OVER_BUDGET in outcomes:
        parts.append("over budget: not started, as it was predicted not to fit")
    if Outcome.TIMEOUT in outcomes:
        parts.append("time limit: stopped before it finished")
    if Outcome.SKIPPED in outcomes:
        alone = " or ≈ alone" if foreseen else ""
        parts.append(f"–{alone}: not tried, because a shorter length did not finish")
    if foreseen:
        parts.append("≈: the predicted peak, nothing was measured")
    if any(r.message for r in group.records if stopped(r)):
        parts.append("the reason of each: show --details")
    text = "; ".join(parts)
    return None if not text else f"{text[0].upper()}{text[1:]}."


def device_words(environments: Iterable[Environment]) -> str:
    """Name the devices of the records, with the number of threads on a CPU."""
    found = []
    for environment in environments:
        name = environment.device_name
        if environment.device_kind == "cpu":
            plural = "" if environment.torch_threads == 1 else "s"
            name += f", {environment.torch_threads} thread{plural}"
        found.append(name)
    return " and ".join(dict.fromkeys(found))


def versions_words(environments: Iterable[Environment]) -> str:
    """Name the versions of PyTorch and CUDA."""
    found = []
    for environment in environments:
        cuda = environment.cuda_version
        torch = f"PyTorch {environment.torch_version}"
        found.append(f"{torch}, CUDA {cuda}" if cuda else torch)
    return " and ".join(dict.fromkeys(found))


def model_words(group: Group) -> str:
    """Name the sizes of the models, joined by slashes where variants differ."""
    models = [record.case.model for record in group.records]

    def sizes(name: str) -> str:
        return "/".join(dict.fromkeys(str(getattr(model, name)) for model in models))

    def several(name: str, noun: str) -> str:
        found = sizes(name)
        return f"{found} {noun if found == '1' else noun + 's'}"

    words = [
        several("n_layers", "layer"),
        f"d_model {sizes('d_model')}",
        f"d_ff {sizes('d_ff')}",
        several("n_heads", "head"),
        f"vocabulary {sizes('vocab_size')}",
        sizes("dtype"),
    ]
    lsh = [model for model in models if Attention.LSH in model.attention]
    if lsh:
        hashes = "/".join(dict.fromkeys(str(model.n_hashes) for model in lsh))
        chunks = "/".join(dict.fromkeys(str(model.chunk_length) for model in lsh))
        plural = "" if hashes == "1" else "es"
        words.append(f"LSH with {hashes} hash{plural} in chunks of {chunks}")
    return ", ".join(words)


def date_words(group: Group) -> str:
    """Return the day on which the first case started, in UTC."""
    return min(record.started_at for record in group.records)[:10]


def environments(group: Group) -> list[Environment]:
    """Return every record's environment, in order."""
    return [record.environment for record in group.records]


def _included(group: Group) -> str:
    if group.workload == "forward":
        return "includes the parameters; there are no gradients"
    states = dict.fromkeys(
        _OPTIMIZERS[r.case.optimizer] for r in group.records if r.case.optimizer in _OPTIMIZERS
    )
    if group.workload == "train_step" and states:
        return f"includes parameters, gradients and {' or '.join(states)}"
    return "includes parameters and gradients; there is no optimizer"
