"""JSON values as column values: one Arrow type for what was seen in a column, and values to fit it.

Columns of one kind keep it (bool, int64, double, string); other columns are carried as JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from cogbatch.dataset.rows import clean

Kinds = dict[str, set[str]]  # of the values seen, per column


def parse_object(text: bytes | str) -> dict[str, Any]:
    """The JSON object. Raises ValueError: one line about what is wrong; RecursionError."""
    try:
        value = json.loads(text if isinstance(text, str) else text.decode("utf-8-sig"))  # loads takes UTF-16
    except UnicodeDecodeError as err:
        raise ValueError(f"not UTF-8 text at byte {err.start + 1}; save the file as UTF-8") from err
    except json.JSONDecodeError as err:
        raise ValueError(f"not valid JSON at character {err.pos + 1}: {err.msg}") from err
    if not isinstance(value, dict):
        raise ValueError(f"a JSON {type(value).__name__}; expected an object with column names as keys")
    return value


def note_kinds(kinds: Kinds, values: Mapping[str, object], *, prefix: str = "") -> None:
    """Adds the kinds of these values, with a prefix to the columns' names. A name that is no text is none."""
    for name, value in values.items():
        if clean(name) == name:
            kinds.setdefault(prefix + name, set()).add(_kind(value))


def schema_of(kinds: Kinds) -> pa.Schema:
    """The columns that were seen, with their types."""
    return pa.schema([(name, _type(seen)) for name, seen in kinds.items()])


def fit(value: object, kind: pa.DataType) -> object:
    """A value as the column's type has it: text of what is no text, int as float."""
    if value is None or isinstance(value, str):
        return value
    if pa.types.is_string(kind):
        return json.dumps(value, ensure_ascii=False)
    return float(value) if pa.types.is_floating(kind) and isinstance(value, int) else value


def _kind(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        return "other"
    name = type(value).__name__
    return name if name in ("NoneType", "bool", "int", "float", "str") else "other"


def _type(kinds: set[str]) -> pa.DataType:
    kinds = kinds - {"NoneType"}
    if kinds == {"bool"}:
        return pa.bool_()
    if kinds == {"int"}:
        return pa.int64()
    return pa.float64() if kinds in ({"float"}, {"int", "float"}) else pa.string()
