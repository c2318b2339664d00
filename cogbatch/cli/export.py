"""cogbatch export: candidates of runs as training data."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from cogbatch.cli.app import app
from cogbatch.cli.options import (
    Checker,
    Debug,
    Json,
    Metric,
    References,
    Threshold,
    judge_options,
    rows_percent,
    show,
)
from cogbatch.types import Dedupe, FormatName, ImageFormat, Select, SplitBy

CHANGES_NOTHING = ("overwrite", "as_json", "debug")  # in what is written


@app.command(no_args_is_help=True)
def export(
    context: typer.Context,
    run_dirs: Annotated[list[str], typer.Argument(metavar="RUN_DIR", help="Run directories, one or more.")],
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="Folder to make; s3:// too where the format allows it.")
    ],
    format: Annotated[FormatName, typer.Option("--format", "-f", help="Who reads it: docs/export.md.")],
    select: Annotated[
        Select | None, typer.Option(help="Which candidates of an item. [default: best; dpo makes pairs]")
    ] = None,
    top: Annotated[
        int | None, typer.Option("--top", "-n", min=1, help="Candidates an item for top-n. [default: none]")
    ] = None,
    checker: Checker = None,
    references: References = None,
    metric: Metric = None,
    threshold: Threshold = None,
    score: Annotated[
        str | None,
        typer.Option(
            help="Score by logprob, selector or a carried column. [default: the selector's, else logprob]"
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Candidates left out otherwise: loop, length or empty; repeat. [default: none]"),
    ] = None,
    dedupe: Annotated[
        Dedupe, typer.Option(help="Across items: pairs are the same image, prompt and text.")
    ] = "pairs",
    near: Annotated[float, typer.Option(help="Similarity from which texts are near duplicates.")] = 0.8,
    validation: Annotated[float, typer.Option(help="Share of images for the validation split.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    split_by: Annotated[
        SplitBy, typer.Option(help="perceptual: images that look alike stay together; pixels: equal ones.")
    ] = "perceptual",
    min_gap: Annotated[
        float | None, typer.Option(help="Least gap of a dpo pair's scores. [default: any above 0]")
    ] = None,
    pairs: Annotated[int | None, typer.Option(min=1, help="Most dpo pairs of an item. [default: 1]")] = None,
    image_format: Annotated[
        ImageFormat, typer.Option(help="keep: JPEG, PNG and WebP as they are; png: all as PNG.")
    ] = "keep",
    image_urls: Annotated[
        bool, typer.Option("--image-urls", help="openai-chat: http(s) images by address, not inside.")
    ] = False,
    shard_mb: Annotated[int, typer.Option(min=1, help="Megabytes of a Parquet or tar file.")] = 500,
    partial: Annotated[bool, typer.Option("--partial", help="Also runs that are not finished.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write candidates as training data: one folder, with a card, that its consumer loads as it is.

    \b
    cogbatch export runs/demo data/demo --format llava --validation 0.05
    cogbatch export runs/demo data/pairs --format dpo --checker jobs.demo.check:check
    """
    del debug
    from cogbatch.dataset.rows import printable
    from cogbatch.eval.export import ExportOptions, export_runs

    options = ExportOptions(
        format=format,
        select=select,
        top=top,
        threshold=threshold,
        judge=judge_options(checker, references, metric, None),
        score=score,
        keep=tuple(keep or ()),  # type: ignore[arg-type]  # typer has no list of a Literal
        dedupe=dedupe,
        near=near,
        validation=validation,
        seed=seed,
        split_by=split_by,
        min_gap=min_gap,
        pairs=pairs,
        image_format=image_format,
        image_urls=image_urls,
        shard_bytes=shard_mb * 1_000_000,
        partial=partial,
    )
    done = export_runs(
        run_dirs,
        out,
        options,
        overwrite=overwrite,
        command=_command(context),
        on_progress=rows_percent("exported"),
    )
    for note in done.notes:
        typer.echo(f"Note: {printable(note)}", err=True)
    show(_lines(str(done.out), done.counts), {"export": str(done.out), **done.counts}, as_json=as_json)


def _lines(out: str, counts: dict[str, Any]) -> list[str]:
    examples = ", ".join(f"{count} {split}" for split, count in counts["examples"].items())
    images = sum(counts["images"].values())
    lines = [f"{out}: {examples} ({images} images)"]
    lines.append(f"{counts['items']} items: {_listed(counts['outcomes'])}")
    if counts["dropped"]:
        left_out = sum(counts["dropped"].values())
        lines.append(
            f"{left_out} of {counts['candidates']} candidates left out: {_listed(counts['dropped'])}"
        )
    return lines


def _listed(counts: dict[str, int]) -> str:
    return "; ".join(f"{count} {name}" for name, count in counts.items())


def _command(context: typer.Context) -> str:
    """The command line that was given, in one form; OUT stands for the folder, which changes nothing."""
    words = ["cogbatch", "export"]
    options: list[str] = []
    for parameter in context.command.params:
        name, value = parameter.name or "", context.params.get(parameter.name or "")
        values = value if isinstance(value, list | tuple) else [] if value is None else [value]
        if parameter.param_type_name == "argument":
            words += ["OUT"] if name == "out" else values
        elif name not in CHANGES_NOTHING and value != parameter.get_default(context):
            option = max(parameter.opts, key=len)
            options += [option] if value is True else [w for each in values for w in (option, str(each))]
    return shlex.join([*words, *options])
