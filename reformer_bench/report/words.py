"""Words and figures that tables, plots and commands share, and the notes under a table or plot."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from reformer_bench.report.frames import CaseRow, foreseen_bytes
from reformer_bench.report.groups import Group
from reformer_bench.schema.case import Case
from reformer_bench.schema.model import Attention
from reformer_bench.schema.record import Environment, Outcome, Record
from reformer_bench.schema.training import OPTIMIZERS
from reformer_bench.schema.units import counted, format_tokens

WORKLOADS = {
    "train_step": "training step",
    "forward": "forward pass and loss, no gradients",
    "eval": "inference, no loss and no gradients",
    "attention": "one attention sublayer, forward and backward",
}
_SOURCES = {
    "cuda-allocator": "PyTorch's CUDA allocator",
    "cpu-allocator-events": "PyTorch's CPU allocator",
    "fake-tensor": "a run on fake tensors (predicted, not measured)",
}
_OUTCOMES = {
    Outcome.OK: "ok",
    Outcome.DEVICE_OOM: "out of memory",
    Outcome.HOST_OOM: "out of memory",
    Outcome.OVER_BUDGET: "over budget",
    Outcome.TIMEOUT: "time limit",
    Outcome.KILLED: "killed",
    Outcome.ERROR: "error",
    Outcome.SKIPPED: "–",
}
_LARGE_SPREAD = 0.1
"""The interquartile range over the median from which on a table warns."""


def outcome_words(record: Record) -> str:
    """Say in two or three words how a case ended; on CUDA, whose memory ran out."""
    if record.outcome is Outcome.HOST_OOM and record.environment.device_kind == "cuda":
        return "out of host memory"
    return _OUTCOMES[record.outcome]


def three_figures(value: float) -> str:
    """Write a positive number in three figures: 0.0123, 5.30, 48.1, 328, 1,230."""
    if value >= 999.5:
        digits = len(str(round(value))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:#.3g}".rstrip(".") if value >= 1e-4 else f"{value:.2g}"


def rate_figure(tokens_per_second: float) -> str:
    """Write thousands of tokens per second in three figures."""
    return three_figures(tokens_per_second / 1e3)


def length_name(records: Iterable[Record]) -> str | None:
    """Return what lengths count in these records: tokens, or what their targets say; None where
    that isn't known, or not the same.
    """
    names = {record.length_name for record in records} - {None}
    return names.pop() if len(names) == 1 else None


def length_words(length: int, records: Iterable[Record]) -> str:
    """Write a length with what it counts: ``4K tokens``, ``64 pixels a side``, ``length 64``."""
    name = length_name(records)
    shown = format_tokens(length)
    return f"length {shown}" if name is None else f"{shown} {name}"


def rate_noun(records: Iterable[Record]) -> str:
    """Return what throughput counts: tokens, or examples where lengths count something else."""
    kinds = {record.counts_tokens for record in records if record.timing is not None}
    if kinds == {False}:
        return "examples"
    return "tokens" if kinds <= {True} else "tokens (or examples)"


def percent(share: float) -> str:
    """Write a share as a percentage in about two figures: 0.4%, 7.3%, 45%."""
    value = 100 * share
    return f"{value:.0f}%" if value >= 9.95 else f"{value:.1f}%"


def split_name(name: str, width: int) -> list[str]:
    """Split a variant's name into lines of at most ``width``, after hyphens and
    underscores.

    A part longer than that stays whole.
    """
    lines = [""]
    for part in re.findall(r"[^-_]*[-_]|[^-_]+", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return lines


def row_name(group: Group, length: int) -> str:
    """Write a row's name: ``16K``, or ``16K × 2`` in a group whose batch changes with the
    length.
    """
    if group.batch is not None:
        return format_tokens(length)
    return f"{format_tokens(length)} × {group.batch_at(length)}"


def setting_words(group: Group) -> str:
    """Say what sets a group apart: ``batch 8``, a fixed number of tokens, a seed that isn't 0."""
    tokens = {record.case.tokens for record in group.records}
    if group.batch is not None:
        words = f"batch {group.batch}"
    elif len(tokens) == 1:
        words = f"{format_tokens(*tokens)} tokens a step"
    else:
        words = "batch changes with length"
    return words if group.seed == 0 else f"{words}, seed {group.seed}"


def device_words(environments: Iterable[Environment]) -> str:
    """Name the devices of the records, with the number of threads on a CPU."""
    return " and ".join(
        dict.fromkeys(
            found.device_name
            if found.device_kind != "cpu"
            else f"{found.device_name}, {counted(found.torch_threads, 'thread')}"
            for found in environments
        )
    )


def versions_words(environments: Iterable[Environment]) -> str:
    """Name the versions of PyTorch and CUDA."""
    return " and ".join(
        dict.fromkeys(
            f"PyTorch {found.torch_version}"
            + (f", CUDA {found.cuda_version}" if found.cuda_version else "")
            for found in environments
        )
    )


def model_words(group: Group) -> str:
    """Name the sizes of the models, joined by slashes where variants differ; of targets, what they
    are called and their arguments.
    """
    targets = _targets(group)
    models = [record.case.config for record in group.records if record.case.target is None]
    if not models:
        return "; ".join(targets)
    lsh = [model for model in models if Attention.LSH in model.attention]

    def sizes(name: str, noun: str = "", plural: str = "s") -> str:
        of = lsh if noun == "hash" else models
        found = "/".join(dict.fromkeys(str(getattr(model, name)) for model in of))
        return f"{found} {noun}{'' if found == '1' else plural}" if noun else found

    words = [
        sizes("n_layers", "layer"),
        f"d_model {sizes('d_model')}",
        f"d_ff {sizes('d_ff')}",
        sizes("n_heads", "head"),
        f"vocabulary {sizes('vocab_size')}",
        sizes("dtype"),
    ]
    if lsh:
        chunks = "/".join(dict.fromkeys(str(model.chunk_length) for model in lsh))
        words.append(f"LSH with {sizes('n_hashes', 'hash', 'es')} in chunks of {chunks}")
    return "; ".join((", ".join(words), *targets))


def _targets(group: Group) -> list[str]:
    """Say of each variant that is a target which one, with its optimizer where those differ."""
    cases = {r.case.variant: r.case for r in group.records if r.case.target is not None}
    optimizers = {case.optimizer for case in cases.values()}
    found = []
    for variant, case in cases.items():
        words = target_words(case)
        if len(cases) > 1:
            words = f"{variant}: {words}"
        if len(optimizers) > 1:
            words += f" with {OPTIMIZERS.get(case.optimizer, 'no optimizer')}"
        found.append(words)
    return found


def target_words(case: Case) -> str:
    """Say which target a case's model is, what it is built with, and how it is trained where that
    was set.

    It is shown as it can be typed in the folder where it was run; of a path from elsewhere only
    the end, after ``…/``.
    """
    if case.target is None:
        return ""
    name = case.target.name
    path = Path(name.place)
    elsewhere = name.path is not None and path.is_absolute()
    shown = str(replace(name, place=f"…/{path.name}") if elsewhere else name)
    words = [f"{key} {_value_words(value)}" for key, value in case.target.arguments.items()]
    if case.target.dtype != "float32":
        words.append(case.target.dtype)
    words += switch_words(case)
    return f"{shown} ({', '.join(words)})" if words else shown


def switch_words(case: Case) -> list[str]:
    """Say what is set of how a case is trained and evaluated, switch by switch."""
    set_fields = {
        **case.train.model_dump(mode="json", exclude_defaults=True),
        **case.eval.model_dump(mode="json", exclude_defaults=True),
    }
    return [f"{name} {_value_words(value)}" for name, value in set_fields.items()]


def _value_words(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={_value_words(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ",".join(map(_value_words, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def date_words(group: Group) -> str:
    """Return the day on which the first case started, in UTC."""
    return min(record.started_at for record in group.records)[:10]


def memory_note(group: Group) -> str:
    """Say whose peak it is and what it includes."""
    found = {r.memory.allocator.source for r in group.records if r.memory.allocator is not None}
    if not found:
        return "Peak: no case finished, so no peak was measured."
    who = " and ".join(_SOURCES[source] for source in sorted(found))
    return f"Peak: the most bytes allocated in any phase, by {who}; {_included(group)}."


def _included(group: Group) -> str:
    if group.workload in ("forward", "eval"):
        return "includes the parameters; there are no gradients"
    names = dict.fromkeys(
        OPTIMIZERS[r.case.optimizer] for r in group.records if r.case.optimizer in OPTIMIZERS
    )
    if group.workload == "train_step" and names:
        state = f"{' or '.join(names)}'s state"
        if len(names) > 1:
            state = f"the optimizer's state ({', '.join(names)})"
        return f"includes parameters, gradients and {state}"
    return "includes parameters and gradients; there is no optimizer"


def throughput_note(group: Group) -> str:
    """Say what throughput is, and how far samples scatter where they scatter much."""
    note = (
        f"Throughput: {rate_noun(group.records)} of a step, divided by the median time of a warm "
        "step (not the first)."
    )
    if any(record.cold_rate is not None for record in group.records):
        note += " Cold: the first step is the only one (on a CPU with the memory profiler on)."
    steps = ((record, CaseRow(record).step) for record in group.records if record.finished)
    spread, where = max(
        (
            (step.relative_iqr, f"{record.case.variant} at {row_name(group, record.case.length)}")
            for record, step in steps
            if step is not None and step.relative_iqr is not None
        ),
        default=(0.0, ""),
    )
    if spread < _LARGE_SPREAD:
        return note
    return (
        f"{note} Samples scatter: the interquartile range reaches {percent(spread)} of the "
        f"median ({where})."
    )


def stop_note(group: Group) -> str | None:
    """Say what the words in cells of unfinished cases mean; None where all finished."""
    outcomes = {record.outcome for record in group.records}
    foreseen = any(foreseen_bytes(record) is not None for record in group.records)
    alone = " or ≈ alone" if foreseen else ""
    told = {
        "out of memory: the allocation failed": any(o.is_out_of_memory for o in outcomes),
        "over budget: not started, as it was predicted not to fit": Outcome.OVER_BUDGET in outcomes,
        "time limit: stopped before it finished": Outcome.TIMEOUT in outcomes,
        f"–{alone}: not tried, because a shorter length did not finish": Outcome.SKIPPED
        in outcomes,
        "≈: the predicted peak, nothing was measured": foreseen,
        "the reason of each: show --details": any(
            record.message for record in group.records if record.outcome.is_stop
        ),
    }
    text = "; ".join(words for words, holds in told.items() if holds)
    return f"{text[0].upper()}{text[1:]}." if text else None


def mismatch_notes(group: Group) -> list[str]:
    """Say, for each variant that another library runs, what could not be matched to what
    was asked.
    """
    notes = []
    for variant in group.variants:
        told = [r for r in group.series(variant) if r.settings.get("mismatches")]
        if told:
            # The longest case: what depends on length is then said of where it matters most.
            settings = told[-1].settings
            notes.append(
                f"{variant} is {settings['library']}, pinned as its records say; it differs in: "
                f"{settings['mismatches']}."
            )
    return notes
