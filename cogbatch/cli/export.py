"""cogbatch export: candidates of runs as training data."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

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

if TYPE_CHECKING:
    from cogbatch.eval.export import ExportOptions

CHANGES_NOTHING = ("overwrite", "as_json", "debug")  # in what is written


class RunsThenFolder(TyperCommand):
    """A single path is a run without OUT; Typer would take it for OUT and miss RUN_DIR."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as err:
            if err.param is not None and err.param.name == "run_dirs":
                (err.param,) = (param for param in self.params if param.name == "out")  # type: ignore[assignment]
            raise


@app.command(cls=RunsThenFolder, no_args_is_help=True)
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
        typer.Option(
            help="Also candidates of this kind: loop, length or empty. May be repeated. [default: none]"
        ),
    ] = None,
    dedupe: Annotated[
        Dedupe, typer.Option(help="Across items: pairs are the same image, prompt and text.")
    ] = "pairs",
    near: Annotated[
        float | None,
        typer.Option(help="Similarity of near duplicates, for near and distinct. [default: 0.8]"),
    ] = None,
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
    lines = _lines(str(done.out), done.counts, options)
    show(lines, {"export": str(done.out), **done.counts}, as_json=as_json)


def _lines(out: str, counts: dict[str, Any], options: ExportOptions) -> list[str]:
    examples = ", ".join(f"{count} {split}" for split, count in counts["examples"].items())
    images = sum(counts["images"].values())
    lines = [f"{out}: {examples} ({images} images)"]
    items = f"{counts['items']} items"
    if counts["items"] < counts["run_items"]:
        items = f"{counts['items']} of {counts['run_items']} items (--partial: the run is not finished)"
    lines.append(f"{items}: {_listed(counts['outcomes'])}")
    if counts["dropped"]:
        left_out = sum(counts["dropped"].values())
        lines.append(
            f"{left_out} of {counts['candidates']} candidates left out: {_listed(counts['dropped'])}"
        )
    if counts["not_correct"]:
        learnt = "chosen candidates" if options.is_pairs else "candidates"
        lines.append(
            f"{counts['not_correct']} of {counts['judged']} {learnt} are not correct by {options.judged_by}"
        )
    return lines


def _listed(counts: dict[str, int]) -> str:
    return "; ".join(f"{count} {name}" for name, count in counts.items())


def _command(context: typer.Context) -> str:
    """The command line that was given, in one form, to be published.

    OUT stands for the folder, which changes nothing, and a name for an absolute path of a run.
    """
    words = ["cogbatch", "export"]
    options: list[str] = []
    for parameter in context.command.params:
        name, value = parameter.name or "", context.params.get(parameter.name or "")
        values = value if isinstance(value, list | tuple) else [] if value is None else [value]
        if parameter.param_type_name == "argument":
            words += ["OUT"] if name == "out" else [_public(path) for path in values]
        elif name not in CHANGES_NOTHING and value != parameter.get_default(context):
            option = max(parameter.opts, key=len)
            options += [option] if value is True else [w for each in values for w in (option, str(each))]
    return shlex.join([*words, *options])


def _public(path: str) -> str:
    return Path(path).name if Path(path).is_absolute() else path
