"""A scatter plot for a terminal: quality against diversity, a letter for every point of a sweep."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import TYPE_CHECKING

import plotext
from rich.text import Text

if TYPE_CHECKING:
    from cogbatch.eval.sweep_table import SweepTable

HEIGHT, MAX_WIDTH = 20, 90  # in cells


def scatter(table: SweepTable, *, width: int) -> Iterator[str]:
    """Lines without colours: the plot, then which letter is which point. Nothing if no point has both axes.

    Capitals are on the front. With more points than letters the rest are dots.
    """
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(min(width, MAX_WIDTH), HEIGHT)
    figure.label(table.diversity, "x")
    figure.label(table.quality, "y")
    names = []
    for number, point in enumerate(table.points):
        x, y = point.mean(table.diversity), point.mean(table.quality)
        if x is None or y is None:
            continue
        letter = string.ascii_lowercase[number] if number < len(string.ascii_lowercase) else "."
        letter = letter.upper() if point.on_front else letter
        figure.draw(figure.signal([x], [y], marker=letter))
        names.append(f"{letter} {point.name}")
    if names:
        yield from Text.from_ansi(str(figure.build())).plain.splitlines()
        yield f"{', '.join(name for name in names if name[0] != '.')} (capitals: on the front)"
