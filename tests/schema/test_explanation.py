"""Explanations add up to the peak, however much of them is kept."""

import json

import pytest
from pydantic import ValidationError

from reformer_bench.schema.baseline import baseline_of
from reformer_bench.schema.explanation import (
    Explanation,
    Holder,
    bytes_by_kind,
    layer_of,
    merged,
)
from reformer_bench.schema.prediction import Prediction
from reformer_bench.schema.record import Memory
from reformer_bench.store import load_predictions, save_predictions
from tests.builders import environment, explanation, prediction, record_of

LONG = "a_package_with_a_long_name/models/something/modeling_something_long.py:1234"


def holder(module: str, held_bytes: int, **fields) -> Holder:
    return Holder(
        **{"operator": "mm", "kind": "activations", "line": "a.py:1", **fields},
        module=module,
        held_bytes=held_bytes,
    )


def total(found: Explanation) -> int:
    return sum(one.held_bytes for one in found.holders) + found.rest_bytes


def test_layers_that_are_alike_are_one():
    alike = [holder(f"layers.{n}.mlp.2", 10, count=2) for n in range(3)]
    other = holder("layers.0.mlp.2", 50, line="a.py:2")
    assert merged([*alike, other]) == [other, holder("layers.*.mlp.*", 30, count=6)]
    assert merged(merged([*alike, other])) == merged([*alike, other])


def test_what_has_no_like_keeps_its_name():
    alone = holder("layers.7.mlp", 10)
    assert merged([alone]) == [alone]


@pytest.mark.parametrize(
    ("module", "layer"),
    [
        ("model.layers.3.mlp.gate", "model.layers.3"),
        ("encoder.block.2.layer.1.wi", "encoder.block.2"),
        ("layers.*.mlp", "layers.*"),
        ("lm_head", "lm_head"),
        ("conv1", "conv1"),
        ("0.1", "0"),
        ("", ""),
    ],
)
def test_a_layer_ends_at_the_first_number(module, layer):
    assert layer_of(module) == layer


@pytest.mark.parametrize("top", [1, 2, 100])
def test_the_largest_and_the_rest_add_up_to_the_peak(top):
    whole = explanation()
    found = whole.largest(top)
    assert len(found.holders) <= top
    assert total(found) == whole.peak_bytes
    assert sum(h.count for h in found.holders) + found.rest_count == sum(
        h.count for h in whole.holders
    )
    assert total(found.largest(1)) == whole.peak_bytes
    assert [h.held_bytes for h in found.holders] == sorted(
        (h.held_bytes for h in found.holders), reverse=True
    )


def test_bytes_by_kind_are_sums():
    found = bytes_by_kind([holder("a", 1), holder("b", 2), holder("c", 4, kind="gradients")])
    assert found == {"activations": 3, "gradients": 4}


def test_what_is_not_set_is_left_out_and_comes_back():
    whole = explanation()
    text = whole.model_dump_json()
    assert "null" not in text
    assert "recomputed" not in text
    assert Explanation.model_validate_json(text) == whole
    with pytest.raises(ValidationError, match="colour"):
        Explanation.model_validate({**json.loads(text), "colour": "red"})


@pytest.mark.parametrize("line", ["a.py:1", LONG])
def test_a_record_keeps_twelve_groups_at_most_in_two_and_a_half_kilobytes(line):
    holders = [
        holder("a.long.name.of.a.module" + "x" * n, 1000 - n, line=line, shape=(65536, 256))
        for n in range(40)
    ]
    peak = sum(one.held_bytes for one in holders)
    whole = explanation().model_copy(update={"holders": tuple(holders), "peak_bytes": peak})
    memory = Prediction(prediction().memory, 1, explanation=whole).added_to(Memory())
    kept = memory.predicted_explanation
    assert kept is not None
    assert len(kept.model_dump_json()) < 2500
    assert len(kept.holders) == (12 if line == "a.py:1" else 10)
    assert total(kept) == peak
    assert Memory.model_validate_json(memory.model_dump_json()) == memory


def test_records_without_one_load_as_before():
    data = json.loads(record_of(peak=1).model_dump_json())
    del data["memory"]["predicted_explanation"]
    assert Memory.model_validate(data["memory"]).predicted_explanation is None


def test_a_baseline_keeps_none():
    one = record_of(peak=2**20)
    memory = one.memory.model_copy(update={"predicted_explanation": explanation()})
    (kept,) = baseline_of([one.model_copy(update={"memory": memory})]).cases
    assert kept.memory == one.memory


def test_a_run_keeps_it_with_its_predictions(tmp_path):
    known = Prediction(prediction().memory, 1, explanation=explanation())
    save_predictions(tmp_path, environment(), {"a": known})
    assert load_predictions(tmp_path, environment()) == {"a": known}
