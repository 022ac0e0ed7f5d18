"""The published JSON Schema is the one the code has, and records keep to it."""

import json
from pathlib import Path

import jsonschema
import pytest

import reformer_bench.schema
from reformer_bench.schema.record import Outcome, json_schema
from tests.run.builders import record

PUBLISHED = Path(reformer_bench.schema.__file__).parent / "record.schema.json"


def test_the_published_schema_is_up_to_date():
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == json_schema()


@pytest.mark.parametrize("outcome", list(Outcome))
def test_records_of_every_outcome_keep_to_it(outcome):
    schema = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(record(outcome=outcome).model_dump_json()), schema)


def test_a_record_with_a_key_of_its_own_does_not():
    data = json.loads(record().model_dump_json()) | {"peak": 1}
    with pytest.raises(jsonschema.ValidationError, match="peak"):
        jsonschema.validate(data, json_schema())
