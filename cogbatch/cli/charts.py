"""Small histograms for a terminal, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotext
from rich.columns import Columns
from rich.console import Group
from rich.text import Text

WIDTH, HEIGHT = 24, 6  # in cells, without the title


def histograms(values: Mapping[str, Sequence[float]]) -> Columns:
    """One histogram for each title, three in 80 columns. Raises ValueError: a sequence is empty."""
    return Columns(
        [Group(Text(title, "bold"), _histogram(some)) for title, some in values.items()], padding=(0, 2)
    )


def _histogram(values: Sequence[float]) -> Text:
    if not values:
        raise ValueError("a histogram of no values; expected at least one")
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(WIDTH, HEIGHT)
    figure.axes(False)
    figure.ruler("y").ticks([])
    figure.ruler("x").frequency(3)
    figure.draw(figure.hist(values, bins=WIDTH, lines=False))
    drawn = Text.from_ansi(str(figure.build()))
    return Text("\n").join(Text(line.plain) for line in drawn.split("\n"))
