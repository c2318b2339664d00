"""The one Parquet schema of results: one row per input item. Conversion only, no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from cogbatch.dataset.rows import Row
from cogbatch.dataset.values import column_of
from cogbatch.redact import sayable, shown
from cogbatch.types import Candidate, RequestError, RequestOutput


def _field(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, kind, metadata={"description": description})


CANDIDATE = pa.struct(
    [
        _field("index", pa.int32(), "place among the candidates of this row, from 0"),
        _field("text", pa.string(), "the answer, without the end token"),
        _field("token_ids", pa.list_(pa.int32()), "tokens of the answer, end token included"),
        _field("cumulative_logprob", pa.float64(), "log-probability under the model before warpers, in nats"),
        _field("num_tokens", pa.int32(), "number of tokens, end token included"),
        _field("finish_reason", pa.string(), "stop: ended by itself; length: cut at max_new_tokens"),
        _field("weight", pa.float64(), "inverse inclusion weight, where the strategy defines one"),
        _field("score", pa.float64(), "score of the selector or beam, where there is one"),
        _field("lane", pa.int32(), "random stream that the candidate was drawn from"),
        _field("flags", pa.list_(pa.string()), "remarks, for example loop"),
        _field("source", pa.string(), "prompt variant and strategy, where there are several"),
    ]
)
ERROR = pa.struct(
    [
        _field("stage", pa.string(), "where it went wrong: read, image, prompt, generate or worker"),
        _field("type", pa.string(), "kind of error"),
        _field("message", pa.string(), "what happened, in one line"),
    ]
)
FIELDS = (
    _field(
        "id", pa.string(), "id of the request; made from input_file and input_row where the input has none"
    ),
    _field(
        "image", pa.string(), "image path or URL of the input, without secrets; null for bytes and text only"
    ),
    _field("prompt", pa.string(), "prompt, without template"),
    _field("candidates", pa.list_(CANDIDATE), "the answers; empty when there is an error"),
    _field("num_candidates", pa.int32(), "number of candidates delivered"),
    _field("error", ERROR, "why there are no candidates; null when fine"),
    _field("input_file", pa.string(), "input file, relative to the input's folder"),
    _field(
        "input_row", pa.int64(), "row of the input file, from 0; with input_file the identity of the item"
    ),
    _field("model_fingerprint", pa.string(), "sha256 that identifies the model"),
    _field("job_fingerprint", pa.string(), "sha256 that identifies the job"),
    _field(
        "seconds",
        pa.float64(),
        "the item's share of the time that its engine worked, in seconds; shares add up",
    ),
)
RESERVED = frozenset(field.name for field in FIELDS)


def part_schema(carried: pa.Schema | None = None) -> pa.Schema:
    """The schema of a part: the fixed fields, then the carried columns.

    Raises ValueError: a carried column has the name of a fixed field.
    """
    extra = [] if carried is None else list(carried)
    taken = sorted(RESERVED & {field.name for field in extra})
    if taken:
        raise ValueError(f"carried columns {taken} are names of the output schema; rename them in the input")
    return pa.schema([*FIELDS, *extra])


def record(
    row: Row, output: RequestOutput, *, model_fingerprint: str, job_fingerprint: str
) -> dict[str, object]:
    """One row of a part as a dict. The row's own error comes before the output's."""
    error = row.error or output.error
    candidates = [] if error else [_candidate(candidate) for candidate in output.candidates]
    return {
        **row.carried,
        "id": row.id,
        "image": row.image_ref,
        "prompt": row.prompt,
        "candidates": candidates,
        "num_candidates": len(candidates),
        "error": error and _error(row, error),
        "input_file": row.input_file,
        "input_row": row.input_row,
        "model_fingerprint": model_fingerprint,
        "job_fingerprint": job_fingerprint,
        "seconds": output.seconds,
    }


def rows_to_table(records: Sequence[Mapping[str, object]], *, carried: pa.Schema | None = None) -> pa.Table:
    """Records as a table of exactly part_schema(carried), also where a column is all null."""
    schema, fixed = part_schema(carried), pa.Table.from_pylist(list(records), schema=part_schema())
    extra = [column_of((entry.get(field.name) for entry in records), field.type) for field in carried or ()]
    return pa.Table.from_arrays([*fixed.columns, *extra], schema=schema)


def _candidate(candidate: Candidate) -> dict[str, object]:
    return {name: getattr(candidate, name) for name in CANDIDATE_NAMES}


def _error(row: Row, error: RequestError) -> dict[str, str]:
    """The error in the data's own words for the image: the same wherever the dataset lies."""
    message = error.message
    if isinstance(row.image, str) and row.image_ref is not None:
        message = message.replace(shown(row.image), shown(row.image_ref)).replace(row.image, row.image_ref)
    # An exception of any library may quote what it was given.
    return {"stage": error.stage, "type": error.type, "message": sayable(message)}


CANDIDATE_NAMES = tuple(field.name for field in CANDIDATE)
