"""What commands share: options that mean the same everywhere, and how results and progress are shown."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import typer

from cogbatch.types import JudgeMetric, JudgeOptions, Template

MAX_PROCESSES = 16
Json = Annotated[bool, typer.Option("--json", help="Last line on stdout: the result as one JSON object.")]
Debug = Annotated[bool, typer.Option("--debug", help="On an error, show where it came from.")]
Picture = Annotated[
    bool | None,
    typer.Option(
        "--picture/--no-picture", help="Draw images on the terminal. [default: where stdout is one]"
    ),
]
Tokenizer = Annotated[
    str | None,
    typer.Option("--tokenizer", "--local-tokenizer", help="Directory or hub id. [default: the model's]"),
]
Version = Annotated[Template | None, typer.Option(help="Prompt template. [default: the model's own]")]
Checker = Annotated[
    str | None,
    typer.Option(metavar="MODULE:FUNCTION", help="Judges candidates, called as function(text, row)."),
]
References = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Carried column with texts that candidates are judged by."),
]
Metric = Annotated[
    JudgeMetric | None,
    typer.Option(help="How candidates are compared with references. [default: cider]"),
]
Threshold = Annotated[
    float | None,
    typer.Option(help="Score from which a candidate is correct. [default: the checker's or metric's own]"),
]


def judge_options(
    checker: str | None, references: str | None, metric: Metric, threshold: float | None
) -> JudgeOptions | None:
    """What --checker, --references, --metric and --threshold ask for; None where nothing is to be judged.

    Raises ValueError: both a checker and references, a threshold without either, or a metric without
    references.
    """
    if references is None and metric is not None:
        raise ValueError(f"--metric {metric} needs --references, texts that candidates are compared with")
    if checker is None and references is None:
        if threshold is not None:
            raise ValueError("--threshold needs --checker or --references: nothing else gives a score")
        return None
    if checker is not None and references is not None:
        raise ValueError("--checker and --references exclude each other; give one of the two")
    return JudgeOptions(checker=checker, references=references, metric=metric or "cider", threshold=threshold)


def show(lines: Iterable[str], result: Mapping[str, Any], *, as_json: bool) -> None:
    for line in lines:
        typer.echo(line)
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False, default=str))


def processes() -> int:
    """How many compute metrics: one a core, at most 16, as each takes about 100 MB."""
    return min(os.cpu_count() or 1, MAX_PROCESSES)


def percent(verb: str) -> Callable[[int, int], None]:
    """An on_progress(bytes done, bytes in total) that says so on stderr every few seconds."""
    from cogbatch.batch.progress import percent

    return percent(verb, lambda line: typer.echo(line, err=True))


def rows_percent(verb: str) -> Callable[[int, int], None]:
    """The same of rows."""
    from cogbatch.batch.progress import of_rows, percent

    return percent(verb, lambda line: typer.echo(line, err=True), of=of_rows)
