"""cogbatch show: items of a run on the terminal, or the run in a few figures."""

from __future__ import annotations

from typing import Annotated

import typer

from cogbatch.cli.app import app
from cogbatch.cli.options import Debug, Json, Picture
from cogbatch.cli.options import show as put

SAMPLE = 1000  # items that the figures of a run are taken from


@app.command(no_args_is_help=True)
def show(
    run_dir: Annotated[
        str, typer.Argument(metavar="RUN_DIR", help="Run directory: the output.path of a job.")
    ],
    item: Annotated[
        str | None,
        typer.Argument(
            metavar="ID", help="An id, or FILE:ROW of the input. [default: figures and random items]"
        ),
    ] = None,
    max_items: Annotated[int, typer.Option(min=0, help="Items shown at most.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the random items.")] = 0,
    picture: Picture = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show an item of a run with its candidates; without an ID, the run in figures and a few random items.

    \b
    cogbatch show runs/demo scene-000002
    cogbatch show runs/demo --seed 7
    """
    del debug
    from cogbatch.cli.items import figures_shown, items_shown
    from cogbatch.eval.find import draw_items, find_items
    from cogbatch.eval.runs import open_run

    run = open_run(run_dir)
    result: dict[str, object] = {"run": str(run.path), "rows": run.num_rows, "finished": run.num_finished}
    if item is None:
        result |= figures_shown(run, draw_items(run, SAMPLE, seed=seed))
        items = draw_items(run, max_items, seed=seed)
    else:
        found = find_items(run, item, max_items=max_items)
        items, result["found"] = found.items, found.count
        if found.count > len(items):
            typer.echo(f"{found.count} items are called {item}: the first {len(items)} of them", err=True)
    result["items"] = items_shown(run, items, picture=picture)
    put([], result, as_json=as_json)
