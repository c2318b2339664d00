"""Items of a run put on stdout, with their images on a terminal; each function returns the same as JSON."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from cogbatch.cli.screen import FAINT, Shown, screen
from cogbatch.dataset.rows import printable
from cogbatch.eval.figures import figures, spread
from cogbatch.eval.pictures import Picture, read_pictures
from cogbatch.eval.runs import Item, Run

if TYPE_CHECKING:
    from rich.console import RenderableType


def items_shown(run: Run, items: Sequence[Item], *, picture: bool | None) -> list[dict[str, Any]]:
    """Prints the items. picture: whether with images; None: on a terminal."""
    console = screen(forced=picture is True)
    drawn: Sequence[RenderableType] = [""] * len(items)
    if console is not None and picture is not False:
        album = read_pictures(run, items)
        drawn = [_drawn(one, insist=picture is True) for one in album.pictures]
        if album.remark:
            typer.echo(printable(album.remark), err=True)
    for item, image in zip(items, drawn, strict=True):
        shown = Shown(
            title=item.id,
            place=f"{item.input_file}:{item.input_row}",
            prompt=item.prompt,
            candidates=item.candidates,
            error=item.error,
        )
        if console is None:
            typer.echo("\n".join([*shown.lines(), ""]))
        else:
            console.print(shown.sheet(image), "")
    return [_to_json(item) for item in items]


def figures_shown(run: Run, sample: Sequence[Item]) -> dict[str, Any]:
    """Prints what the run has, and what the candidates of the sample are like."""
    counts = {
        key: sum(getattr(part, key) for part in run.parts) for key in ("errors", "candidates", "tokens")
    }
    name = printable(str(run.job["spec"].get("name", "job")))
    said = ", ".join(f"{count:,} {key}" for key, count in counts.items())
    head = f"{name}: {run.num_finished:,} of {run.num_rows:,} rows, {said}"
    values = figures(sample)
    spreads = {key: spread(some) for key, some in values.items()}
    of = f"of {len(sample):,} items drawn at random" if len(sample) < run.num_finished else "of all items"
    console = screen()
    if console is None:
        typer.echo(head)
    else:
        console.print(Text(head, "bold"), soft_wrap=True)
    lines = [
        f"{key} {found['min']:.4g} to {found['max']:.4g}, median {found['median']:.4g}"
        for key, found in spreads.items()
        if found is not None
    ]
    if console is None:
        typer.echo("\n".join([*lines, of, ""]))
    elif lines:
        from cogbatch.cli.charts import histograms

        console.print("", histograms({key: some for key, some in values.items() if some}))
        console.print(Text(f"{'; '.join(lines)}; {of}", FAINT), "")
    return counts | {"sampled": len(sample), "figures": spreads}


def _drawn(picture: Picture, *, insist: bool) -> RenderableType:
    """The image for a terminal, or why there is none."""
    if picture.data_uri is None:
        return Text(printable(picture.note), FAINT)
    from PIL import Image

    from cogbatch.cli.picture import drawing

    data = base64.b64decode(picture.data_uri.partition(",")[2])
    return drawing(Image.open(io.BytesIO(data)), insist=insist)


def _to_json(item: Item) -> dict[str, Any]:
    """The item without what was not read of it: token ids and carried columns. JSON has no NaN: null."""
    values = asdict(item)
    del values["carried"]
    for candidate in values["candidates"]:
        del candidate["token_ids"]
        candidate |= {name: _finite(candidate[name]) for name in ("cumulative_logprob", "weight", "score")}
    return values


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
