"""What commands share: options that mean the same everywhere, and how results and progress are shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import typer

from cogbatch.types import Template

Json = Annotated[bool, typer.Option("--json", help="Last line on stdout: the result as one JSON object.")]
Debug = Annotated[bool, typer.Option("--debug", help="On an error, show where it came from.")]
Tokenizer = Annotated[
    str | None,
    typer.Option("--tokenizer", "--local-tokenizer", help="Directory or hub id. [default: the model's]"),
]
Version = Annotated[Template | None, typer.Option(help="Prompt template. [default: the model's own]")]


def show(lines: Iterable[str], result: Mapping[str, Any], *, as_json: bool) -> None:
    for line in lines:
        typer.echo(line)
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False, default=str))


def percent(verb: str) -> Callable[[int, int], None]:
    from cogbatch.batch.progress import percent

    return percent(verb, lambda line: typer.echo(line, err=True))
