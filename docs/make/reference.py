"""docs/reference.md, from the code: `make docs`, or `python -m docs.make.reference`.

Meanings are read from the docstrings of the specs (their Args), from the field descriptions of the Parquet
schema and from the help of the commands; names, types and defaults from the objects themselves.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from cogbatch.batch.spec import JobSpec
from cogbatch.batch.sweep_spec import SweepSpec
from cogbatch.cli import app
from cogbatch.dataset.schema import FIELDS
from cogbatch.types import GenerationParams

TARGET = Path(__file__).parents[1] / "reference.md"
HEAD = """\
# Reference

Every key of a job, every column of its results, every command. `make docs` writes it from the code.

- [The job spec](#the-job-spec); examples and overrides: [job.md](job.md)
- [The sweep spec](#the-sweep-spec); what it does: [sweeps.md](sweeps.md)
- [Columns of the results](#columns-of-the-results)
- [Commands](#commands)
"""
# Not fields of GenerationParams, and yet keys of the section.
PRESET = ("preset", "text", "null", "settings for a use, under what else is given: docs/strategies.md")
PLAIN_NAMES = {str: "text", int: "integer", float: "number", bool: "true, false", Any: "anything"}
Row = tuple[str, ...]


def reference() -> str:
    """The whole page."""
    parts = [HEAD, "## The job spec\n", *_spec(JobSpec), "## The sweep spec\n", *_spec(SweepSpec)]
    parts += ["## Columns of the results\n", *_columns(), "## Commands\n", *_commands()]
    return "\n".join(parts)


def _spec(model: type[BaseModel]) -> Iterator[str]:
    """A table for the top level, then one for each section."""
    sections = {name: section for name in model.model_fields if (section := _section(model, name))}
    own = [row for row in _rows(model) if row[0] not in sections]
    yield _table(("key", "value", "default", "meaning"), own)
    for name, section in sections.items():
        yield f"### {name}\n\n{_first_line(section)}\n"
        rows = _rows(section)
        yield _table(
            ("key", "value", "default", "meaning"), [PRESET, *rows] if section is GenerationParams else rows
        )


def _section(model: type[BaseModel], name: str) -> type[Any] | None:
    """The class of a section; None where the key is a plain value."""
    kind: Any = model.model_fields[name].annotation
    kind = next(
        (one for one in get_args(kind) if type(None) in get_args(kind)), kind
    )  # a section may be null
    is_class = isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind))
    return kind if is_class else None


def _rows(kind: type[Any]) -> list[Row]:
    """(key, value, default, meaning) of each field of a pydantic model or a dataclass."""
    hints = get_type_hints(kind, include_extras=True)
    defaults = _defaults(kind)
    meanings = described(kind, tuple(defaults))
    return [
        (name, _type_name(hints[name]), _written(default), meanings.get(name, ""))
        for name, default in defaults.items()
    ]


def _defaults(kind: type[Any]) -> dict[str, Any]:
    if issubclass(kind, BaseModel):
        return {
            name: field.get_default(call_default_factory=True) for name, field in kind.model_fields.items()
        }
    found: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        found[field.name] = PydanticUndefined
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found


def described(kind: type[Any], names: Sequence[str]) -> dict[str, str]:
    """What the Args of a class's docstring say of each name: `name: text`, or `name, name: text`."""
    entries = (inspect.getdoc(kind) or "").partition("Args:\n")[2].partition("\n\n")[0]
    text = " ".join(entries.split())
    name = "|".join(map(re.escape, names))
    _, *found = re.split(rf"(?:^|(?<=[.:;] ))((?:(?:{name}), )*(?:{name})): ", text)
    pairs = zip(found[::2], found[1::2], strict=True)
    return {one: said.strip().removesuffix(".") for several, said in pairs for one in several.split(", ")}


def _first_line(kind: type[Any]) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def _type_name(kind: Any) -> str:
    """What may be written there, for a person."""
    if get_origin(kind) is Annotated:
        return _type_name(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_type_name(one) for one in get_args(kind) if one is not type(None))
    if get_origin(kind) in (tuple, list, Sequence):
        return "list"
    if get_origin(kind) in (dict, Mapping) or (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return "mapping"
    return PLAIN_NAMES.get(kind, getattr(kind, "__name__", str(kind)))


def _written(value: Any) -> str:
    """A default as YAML has it."""
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, tuple | list | Mapping) and not value:
        return "none"
    return f"`{value}`" if isinstance(value, str) else json.dumps(value, default=str)


def _columns() -> Iterator[str]:
    yield "One row for each row of the input, then the columns that `input.columns` names.\n"
    yield _table(("column", "type", "meaning"), list(_fields(pa.schema(FIELDS), "")))


def _fields(fields: Any, above: str) -> Iterator[Row]:
    """(name, type, description) of each field, with those inside structs and lists below it."""
    for field in fields:
        kind, inside = field.type, ""
        if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
            kind, inside = kind.value_type, "[]"
        shown = "list of struct" if inside else "struct" if pa.types.is_struct(kind) else _arrow_name(kind)
        yield above + field.name, shown, field.metadata[b"description"].decode()
        if pa.types.is_struct(kind):
            yield from _fields(kind, f"{above}{field.name}{inside}.")


def _arrow_name(kind: pa.DataType) -> str:
    return f"list of {kind.value_type}" if pa.types.is_list(kind) else str(kind)


def _commands() -> Iterator[str]:
    yield "`cogbatch COMMAND --help` says the same.\n"
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined] # a group
        said, _, examples = (command.help or "").partition("\n\n\b")
        yield f"### {name}\n\n{_joined(said)}\n"
        yield f"```bash\n{inspect.cleandoc(examples)}\n```\n"
        rows = [_parameter(one) for one in command.params if one.name != "help"]
        yield _table(("option", "default", "meaning"), rows)


def _parameter(one: Any) -> Row:
    """(name, default, meaning); a default that only the help text knows is taken out of it."""
    said, _, default = " ".join((one.help or "").split()).partition("[default: ")
    if default:
        default = default.removesuffix("]")
    elif one.required:
        default = "required"
    elif isinstance(one.default, bool):
        default = "on" if one.default else "off"
    elif one.default is not None:
        default = f"`{one.default}`"
    elif one.multiple or _is_argument(one):
        default = "none"
    names = ", ".join([*one.opts, *one.secondary_opts])
    if _is_argument(one):
        names = str(one.metavar or one.name.upper()).strip("[]")
    return names, default or "off", said.strip()


def _is_argument(one: Any) -> bool:
    return not one.opts[0].startswith("-")


def _joined(text: str) -> str:
    """Paragraphs, each on one line."""
    return "\n\n".join(" ".join(one.split()) for one in inspect.cleandoc(text).split("\n\n"))


def _table(head: Row, rows: Sequence[Row]) -> str:
    """A Markdown table; the first column as code, pages of docs/ as links."""
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for name, *cells in rows:
        linked = [re.sub(r"\bdocs/(\w+\.md)", r"[\1](\1)", cell.replace("|", "\\|")) for cell in cells]
        lines.append(" | ".join([f"`{name}`".replace("|", "\\|"), *linked]))
    return "".join(f"| {line} |\n" for line in lines)


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
