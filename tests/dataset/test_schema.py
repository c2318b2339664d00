"""The output schema is the documented one, and records fill it."""

from __future__ import annotations

import pyarrow as pa
import pytest

from cogbatch.dataset.rows import Row
from cogbatch.dataset.schema import RESERVED, part_schema, record, rows_to_table
from cogbatch.types import Candidate, RequestError, RequestOutput

CANDIDATE = pa.struct(
    [
        ("index", pa.int32()),
        ("text", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("cumulative_logprob", pa.float64()),
        ("num_tokens", pa.int32()),
        ("finish_reason", pa.string()),
        ("weight", pa.float64()),
        ("score", pa.float64()),
        ("lane", pa.int32()),
        ("flags", pa.list_(pa.string())),
        ("source", pa.string()),
    ]
)
DOCUMENTED = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.string()),
        ("prompt", pa.string()),
        ("candidates", pa.list_(CANDIDATE)),
        ("num_candidates", pa.int32()),
        ("error", pa.struct([("stage", pa.string()), ("type", pa.string()), ("message", pa.string())])),
        ("input_file", pa.string()),
        ("input_row", pa.int64()),
        ("model_fingerprint", pa.string()),
        ("job_fingerprint", pa.string()),
        ("seconds", pa.float64()),
    ]
)


def fields_within(kind: pa.DataType) -> list[pa.Field]:
    if pa.types.is_struct(kind):
        return [inner for field in kind for inner in (field, *fields_within(field.type))]
    return fields_within(kind.value_type) if pa.types.is_list(kind) else []


def test_the_schema_is_the_documented_one_and_carried_columns_follow() -> None:
    assert part_schema().equals(DOCUMENTED)
    carried = pa.schema([("scene", pa.string())])
    assert part_schema(carried).equals(pa.unify_schemas([DOCUMENTED, carried]))
    assert frozenset(DOCUMENTED.names) == RESERVED


def test_every_field_says_what_it_is() -> None:
    fields = [inner for field in part_schema() for inner in (field, *fields_within(field.type))]
    assert len(fields) == 11 + 11 + 3
    assert all(field.metadata[b"description"] for field in fields)


def test_a_carried_column_with_a_fixed_name_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"\['prompt'\] are names of the output"):
        part_schema(pa.schema([("prompt", pa.string())]))


def test_a_record_holds_the_row_and_its_candidates() -> None:
    candidate = Candidate(0, "a cat", (5, 6, 2), -1.5, 3, "stop", lane=4, flags=("loop",))
    row = Row("f.parquet", 7, "x", b"bytes", None, "What?", {"scene": "s"})
    entry = record(
        row, RequestOutput("x", (candidate,), seconds=0.5), model_fingerprint="m", job_fingerprint="j"
    )
    assert rows_to_table([entry], carried=pa.schema([("scene", pa.string())])).to_pylist() == [
        {
            "id": "x",
            "image": None,
            "prompt": "What?",
            "candidates": [
                {
                    "index": 0,
                    "text": "a cat",
                    "token_ids": [5, 6, 2],
                    "cumulative_logprob": -1.5,
                    "num_tokens": 3,
                    "finish_reason": "stop",
                    "weight": None,
                    "score": None,
                    "lane": 4,
                    "flags": ["loop"],
                    "source": None,
                }
            ],
            "num_candidates": 1,
            "error": None,
            "input_file": "f.parquet",
            "input_row": 7,
            "model_fingerprint": "m",
            "job_fingerprint": "j",
            "seconds": 0.5,
            "scene": "s",
        }
    ]


def test_the_error_of_a_row_comes_before_its_output() -> None:
    row = Row("f", 0, "x", error=RequestError("read", "ValueError", "bad line"))
    output = RequestOutput("x", error=RequestError("worker", "Died", "later"))
    entry = record(row, output, model_fingerprint="m", job_fingerprint="j")
    assert entry["error"] == {"stage": "read", "type": "ValueError", "message": "bad line"}
    assert (entry["candidates"], entry["num_candidates"]) == ([], 0)


def test_a_column_of_nulls_keeps_its_type() -> None:
    row = Row("f", 0, "x")
    entry = record(row, RequestOutput("x"), model_fingerprint="m", job_fingerprint="j")
    assert rows_to_table([entry]).schema.equals(part_schema())
    assert rows_to_table([]).schema.equals(part_schema())
