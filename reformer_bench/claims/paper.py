"""The paper's claims: each sentence, what it leads to expect, and how records give evidence of it.

Powers come from the complexities of Tables 1 and 3: which term the suite's sizes let dominate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from reformer_bench.claims.evidence import (
    D_FF,
    FLOPS,
    HASH_ROUNDS,
    LAYERS,
    TIME,
    TOKENS,
    Axis,
    Basis,
    Evidence,
    Quantity,
    Records,
    Select,
    at_longest,
    chosen,
    exponent,
    fitted,
    growth,
    keep,
    latest,
    least,
    memory_growth,
    models,
    smallest_peak,
    suite,
    time_growth,
)
from reformer_bench.claims.judge import (
    CONSTANT,
    FALLS,
    Bounds,
    Claim,
    Expectation,
    Judgement,
    judge,
    power,
)
from reformer_bench.schema.record import Quality, Record
from reformer_bench.schema.units import GIB, counted


def judge_claims(records: Iterable[Record]) -> list[Judgement]:
    """Judge every claim, in the order of the paper.

    Where something was measured, predictions for another kind of device count only for claims that
    the measured device can say nothing about.
    """
    known = latest(records)
    measured = {record.environment.device_kind for record in known if record.is_measured}
    here = [r for r in known if not measured or r.environment.device_kind in measured]
    return [
        judge(
            claim,
            known if claim.elsewhere else here,
            was_run=any(record.case.suite in claim.suites for record in here),
        )
        for claim in CLAIMS
    ]


def _memory(
    words: str, bounds: Bounds, axis: Axis, *steps: Select, subject: str = ""
) -> Expectation:
    return Expectation(f"memory {words}", bounds, memory_growth(axis, *steps), subject)


def _time(words: str, bounds: Bounds, axis: Axis, *steps: Select, subject: str = "") -> Expectation:
    return Expectation(f"time {words}", bounds, time_growth(axis, *steps), subject)


def _where_most_depths_ended(records: Records) -> Records:
    """Choose the longest length at which three or more depths finished."""
    ended = Counter(r.case.length for r in records if r.activation_bytes is not None)
    longest = max((n for n, count in ended.items() if count >= 3), default=max(ended, default=0))
    return [record for record in records if record.case.length == longest]


_TABLE_3_MODELS = {
    "transformer": models(attention="full", residual="standard", chunked=False),
    "reversible": models(attention="full", residual="reversible", chunked=False),
    "chunked reversible": models(attention="full", residual="reversible", chunked=True),
    "LSH": models(attention="lsh", residual="standard", chunked=False),
    "reformer": models(attention="lsh", residual="reversible", chunked=True),
}


def _row_of_table_3(name: str, subject: str, *powers: int) -> Iterator[Expectation]:
    """Yield what is expected of a model in length, layers and d_ff, each with the records that
    vary nothing else.
    """
    model = _TABLE_3_MODELS[name]
    shallow_and_narrow = (suite("table-3"), model, least(LAYERS.of, D_FF.of))
    narrow = (suite("table-3"), model, least(D_FF.of), _where_most_depths_ended)
    # Where d_ff outweighs the scores.
    short_and_shallow = (suite("table-3-width"), model, least(TOKENS.of, LAYERS.of))
    # Time and FLOPs need other sizes than memory to show their growth, so they are only told.
    beside = (("time", TIME), ("FLOPs", FLOPS))
    for k, words, axis, steps in zip(
        powers,
        ("length", "layers", "d_ff"),
        (TOKENS, LAYERS, D_FF),
        (shallow_and_narrow, narrow, short_and_shallow),
        strict=True,
    ):
        gather = memory_growth(axis, *steps, beside=beside)
        yield Expectation(f"{name}, memory in {words}", power(k), gather, subject, name)


def _order_of_table_3(records: Records) -> Evidence:
    """Find the largest ratio of a leaner model to the one before it. Each pair is compared at the
    longest length, and then at the most layers, that both have.
    """
    records = chosen(records, suite("table-3"))
    basis: Basis = "measured" if any(record.is_measured for record in records) else "predicted"
    known = [record for record in records if basis == "predicted" or record.is_measured]
    ratios = {}
    for before, after in (
        ("transformer", "reversible"),
        ("reversible", "chunked reversible"),
        ("transformer", "LSH"),
        ("LSH", "reformer"),
    ):
        heavy, light = (
            {
                (record.case.length, record.case.config.n_layers): activations
                for record in chosen(known, _TABLE_3_MODELS[name])
                if (activations := record.activation_bytes) is not None
            }
            for name in (before, after)
        )
        shared = heavy.keys() & light.keys()
        if not shared:
            return Evidence(note=f"{before} and {after} share no size")
        ratios[f"{after} to {before}"] = light[max(shared)] / heavy[max(shared)]
    worst = max(ratios, key=lambda name: ratios[name])
    return Evidence(ratios[worst], basis, f"the largest is {worst}")


def _flat_time(n_rounds: int) -> Expectation:
    of_rounds = keep(lambda record: record.case.config.n_hashes == n_rounds)
    words = f"with {counted(n_rounds, 'hash round')}"
    return _time(words, CONSTANT, TOKENS, _LSH, of_rounds, subject=f"lsh-{n_rounds}")


def _quality(inputs: str, of: Callable[[Quality], float]) -> Quantity:
    """Return how near attention comes to full attention on one kind of vectors."""
    return Quantity(
        lambda record: next((of(q) for q in record.quality if q.inputs == inputs), None)
    )


def _error_growth(records: Records) -> Evidence:
    """Fit the error for close neighbours, and tell beside it how much attention no round sees, and
    how vectors without close neighbours fare.
    """
    error = _quality("planted", lambda found: found.relative_error)
    beside = [
        exponent(f"{name} on {inputs} vectors", growth(records, HASH_ROUNDS, _quality(inputs, of)))
        for name, inputs, of in (
            ("attention missed", "planted", lambda found: 1 - found.mass_caught),
            ("attention missed", "random", lambda found: 1 - found.mass_caught),
            ("error", "random", lambda found: found.relative_error),
        )
    ]
    notes = ", ".join(filter(None, beside))
    return fitted(growth(records, HASH_ROUNDS, error), HASH_ROUNDS, "measured", notes)


def _trains_ours(record: Record) -> bool:
    return record.case.workload == "train_step" and record.case.implementation == "native"


def _is_of_the_papers_size(record: Record) -> bool:
    model = record.case.config
    return (
        record.case.length >= 65_536
        and model.n_layers >= 20
        and model.d_model >= 1024
        and model.d_ff >= 4096
        and model.n_heads >= 8
    )


def _left_on_device(records: Records) -> Evidence:
    """Fit the whole peak in layers, in which copies of parameters that stayed would show. The
    shortest length is taken, where parameters weigh most.
    """
    peak = Quantity(lambda record: record.memory.peak_bytes)
    finished = [record for record in records if record.finished]
    bases: tuple[tuple[Basis, Records], ...] = (
        ("measured", [record for record in finished if record.is_measured]),
        ("predicted", [record for record in finished if record.is_predicted]),
    )
    for basis, known in bases:
        swapped, resident = (
            [record for record in known if record.case.config.parameter_offload == place]
            for place in ("cpu", "none")
        )
        if swapped:
            shortest = min(record.case.length for record in swapped)
            fit, without = (
                growth([r for r in found if r.case.length == shortest], LAYERS, peak)
                for found in (swapped, resident)
            )
            return fitted(fit, LAYERS, basis, exponent("without swapping", without))
    return fitted(None, LAYERS)


def _time_of_transfer(records: Records) -> Evidence:
    """Return the time with swapping as a multiple of the time without, for the deepest model at the
    longest length that has both.
    """
    times: dict[str, dict[tuple[int, int], float]] = {"none": {}, "cpu": {}}
    for record in records:
        model = record.case.config
        if record.step_ms is not None:
            size = record.case.length, model.n_layers
            times[model.parameter_offload][size] = record.step_ms
    shared = times["none"].keys() & times["cpu"].keys()
    if not shared:
        return Evidence(note="no GPU was timed both with and without swapping")
    length, layers = at = max(shared)
    ratio = times["cpu"][at] / times["none"][at]
    return Evidence(ratio, note=f"{layers} layers at {length:,} tokens")


_FULL, _LSH = models(attention="full"), models(attention="lsh")
_EFFICIENT = models(attention="memory_efficient")
_REFORMER = models(attention="lsh", residual="reversible")
_FITS_16_GIB = "peak of a training step", Bounds(0, 16 * GIB, "bytes")

CLAIMS = (
    Claim(
        id="quadratic-full",
        statement="Full attention takes memory and time that grow as L²; memory-efficient "
        "attention takes memory that grows as L.",
        source="section 2, Table 1",
        suites=("attention-scaling",),
        quantity="activation memory and time of one attention sublayer, in length",
        against="an exponent whose interval lies outside its bounds",
        title="Full attention grows as L²",
        expectations=(
            _memory("of full attention", power(2), TOKENS, _FULL, subject="full"),
            _time("of full attention", power(2), TOKENS, _FULL, subject="full"),
            _memory(
                "of memory-efficient attention",
                power(1),
                TOKENS,
                _EFFICIENT,
                subject="memory-efficient",
            ),
            _time(
                "of memory-efficient attention",
                power(2),
                TOKENS,
                _EFFICIENT,
                subject="memory-efficient",
            ),
        ),
    ),
    Claim(
        id="linear-lsh",
        statement="LSH attention takes memory and time that grow about as L at a fixed chunk.",
        source="section 2, Table 1",
        suites=("attention-scaling",),
        quantity="activation memory and time of one attention sublayer, in length",
        against="an exponent whose interval lies outside its bounds",
        title="LSH attention grows as L",
        expectations=(
            _memory("of LSH attention", power(1), TOKENS, _LSH, subject="lsh"),
            _time("of LSH attention", power(1), TOKENS, _LSH, subject="lsh"),
        ),
    ),
    Claim(
        id="depth-free",
        statement="A reversible stack's activation memory does not grow with its layers; a "
        "residual stack's grows with them.",
        source="section 3, Table 3",
        suites=("depth-scaling",),
        narrowed=(keep(lambda record: record.case.config.dtype == "float32"), at_longest),
        quantity="activation memory of a training step, in layers",
        against="a reversible stack that grows, or a residual one that does not",
        title="Reversible layers make depth free",
        expectations=(
            _memory(
                "of a reversible stack",
                CONSTANT,
                LAYERS,
                models(residual="reversible"),
                subject="reversible",
            ),
            _memory(
                "of a residual stack",
                power(1),
                LAYERS,
                models(residual="standard"),
                subject="standard",
            ),
        ),
    ),
    Claim(
        id="ff-chunks",
        statement="Feed-forward chunks take d_ff out of the peak.",
        source="section 3, Table 3",
        suites=("ff-chunks",),
        narrowed=(at_longest,),
        quantity="activation memory of a training step, in d_ff",
        against="memory with chunks that grows with d_ff, or memory without chunks that does not",
        title="Chunks take d_ff out of the peak",
        expectations=(
            _memory("with chunks", CONSTANT, D_FF, models(chunked=True)),
            _memory("without chunks", power(1), D_FF, models(chunked=False), subject="whole"),
        ),
    ),
    Claim(
        id="table-3",
        statement="The five models are ordered, and their memory scales in l, n_l and d_ff, as "
        "Table 3 says.",
        source="Table 3",
        suites=("table-3", "table-3-width"),
        quantity="activation memory of a training step, in length, layers and d_ff",
        against="any of the fifteen exponents, or the order",
        title="Table 3: memory",
        expectations=(
            *_row_of_table_3("transformer", "transformer", 2, 1, 1),
            *_row_of_table_3("reversible", "reversible-transformer", 2, 0, 1),
            *_row_of_table_3("chunked reversible", "chunked-reversible-transformer", 2, 0, 0),
            *_row_of_table_3("LSH", "lsh-transformer", 1, 1, 1),
            *_row_of_table_3("reformer", "reformer", 1, 0, 0),
            Expectation(
                "largest memory ratio of a model to the one it improves on",
                Bounds(0.0, 1.05, "ratio"),
                _order_of_table_3,
            ),
        ),
    ),
    Claim(
        id="flat-speed",
        statement="At a fixed number of tokens full attention slows down with length and LSH "
        "attention does not.",
        source="Figure 5, right",
        suites=("fixed-tokens",),
        quantity="time of a training step, in length, tokens of a step fixed",
        against="full attention that stays flat, or LSH that does not",
        title="At fixed tokens LSH time is flat",
        expectations=(
            _time(
                "with full attention",
                power(1),
                TOKENS,
                keep(lambda r: set(r.case.config.attention) != {"lsh"}),
                subject="full",
            ),
            *map(_flat_time, (1, 2, 4, 8)),
        ),
    ),
    Claim(
        id="more-hashes",
        statement="With more hash rounds LSH attention approaches full attention, at a cost that "
        "grows with the rounds.",
        source="Figure 4, section 4",
        suites=("hash-rounds",),
        narrowed=(_LSH, at_longest),
        quantity="error of the output where each query has a few close neighbours, and time, in "
        "rounds",
        against="an error that does not fall, or a time that is not linear",
        title="Hash rounds approach full attention",
        expectations=(
            Expectation("error of the output", FALLS, _error_growth),
            _time("of LSH attention", power(1), HASH_ROUNDS, subject="lsh"),
        ),
    ),
    Claim(
        id="million-tokens",
        statement="A million tokens fit one accelerator with 16 GB.",
        source="the authors' blog post, January 2020",
        suites=("million", "seq-scaling"),
        of_any_suite=True,
        narrowed=(_REFORMER,),
        quantity="peak of a training step on 1,000,000 tokens or more",
        against="a peak above 16 GiB",
        why_not="no reformer was measured or predicted at a million tokens",
        expectations=(
            Expectation(
                *_FITS_16_GIB,
                smallest_peak(keep(_trains_ours), keep(lambda r: r.case.length >= 10**6)),
            ),
        ),
    ),
    Claim(
        id="deep-64k",
        statement="Twenty layers train at 64K tokens on one accelerator (d_model 1024, d_ff 4096, "
        "8 heads).",
        source="section 5, Figure 5 left",
        suites=("deep-64k",),
        of_any_suite=True,
        narrowed=(_REFORMER,),
        quantity="peak of a training step at that size, and activation memory in layers at 64K",
        against="a peak above 16 GiB, or memory that grows with layers",
        title="20 layers at 64K tokens",
        expectations=(
            Expectation(
                *_FITS_16_GIB, smallest_peak(keep(_trains_ours), keep(_is_of_the_papers_size))
            ),
            _memory(
                "in layers at 64K tokens",
                CONSTANT,
                LAYERS,
                suite("deep-64k"),
                keep(lambda record: record.case.length >= 65_536),
                at_longest,
                least(lambda record: record.case.config.d_model),
                subject="small",
            ),
        ),
    ),
    Claim(
        id="swap-params",
        statement="With parameters swapped, device memory for them does not grow with depth, and "
        "long sequences hide the transfer.",
        source="section 3",
        suites=("param-offload",),
        narrowed=(keep(lambda record: record.environment.device_kind == "cuda"),),
        quantity="memory of a GPU with swapping, in layers; time with swapping as a multiple of "
        "time without",
        against="memory of the GPU that grows with layers, or a step a quarter slower",
        title="Swapped parameters leave the device",
        elsewhere=True,
        why_not="parameters can only be swapped out of a device that has a memory of its own, and "
        "no run has a record of the suite param-offload on a GPU",
        expectations=(
            Expectation("memory of the device with swapping", CONSTANT, _left_on_device, "swapped"),
            Expectation(
                "time with swapping as a multiple of time without",
                Bounds(0.0, 1.25, "ratio"),
                _time_of_transfer,
            ),
        ),
    ),
    *(
        Claim(
            *sentence,
            quantity="accuracy after training",
            why_not="takes a model trained to the end, and no suite trains one",
        )
        for sentence in (
            (
                "shared-qk",
                "Sharing queries and keys costs no accuracy.",
                "Figure 3, left",
                "a shared-QK model that learns worse",
            ),
            (
                "reversible-parity",
                "A reversible model learns as its residual twin does.",
                "Figure 3, right",
                "a reversible model that learns worse",
            ),
            (
                "duplication",
                "LSH models solve the duplication task as Table 2 says.",
                "Table 2",
                "accuracies below the table's",
            ),
        )
    ),
)
