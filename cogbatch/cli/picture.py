"""An image on the terminal: its own graphics (kitty, sixel) where it says that it has them, else half cells.

A terminal is asked only from the foreground and waited for under half a second; over ssh, where answers come
late and would end up in the next command line, only when the user insists.
"""

from __future__ import annotations

import logging
import os
import sys

from PIL.Image import Image, Resampling
from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.style import Style

MAX_COLUMNS = 40
MAX_ROWS = 14
CELL_RATIO = 2  # height of a cell in widths


def drawing(image: Image, *, insist: bool = False) -> RenderableType:
    """The image within 40 x 14 cells. insist: ask the terminal for graphics over ssh too."""
    columns, rows = _cells(image.width, image.height)
    if _may_ask(insist=insist):
        logging.getLogger("textual_image").setLevel(logging.ERROR)
        from textual_image import renderable  # asks the terminal as it is imported

        if renderable.Image in (renderable.TGPImage, renderable.SixelImage):
            return renderable.Image(image, width=columns, height=rows)
    return HalfCells(image, columns, rows)


class HalfCells:
    """An image as upper half blocks, two pixels a cell; rich leaves out what colours the terminal lacks."""

    def __init__(self, image: Image, columns: int, rows: int) -> None:
        self._small = image.convert("RGB").resize((columns, 2 * rows), Resampling.LANCZOS)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lines of cells; nothing where there are no colours to tell them apart."""
        if console.color_system is None or console.no_color:
            return
        for upper in range(0, self._small.height, 2):
            for column in range(min(self._small.width, options.max_width)):
                colours = (self._colour(column, upper), self._colour(column, upper + 1))
                yield Segment("▀", Style(color=colours[0], bgcolor=colours[1]))
            yield Segment.line()

    def _colour(self, column: int, row: int) -> Color:
        red, green, blue = self._small.getpixel((column, row))  # type: ignore[misc] # RGB
        return Color.from_rgb(red, green, blue)


def _cells(width: int, height: int) -> tuple[int, int]:
    """Columns and rows that keep the shape of an image of that many pixels."""
    rows = min(MAX_ROWS, MAX_COLUMNS * height / (width * CELL_RATIO))
    return max(1, min(MAX_COLUMNS, round(rows * CELL_RATIO * width / height))), max(1, round(rows))


def _may_ask(*, insist: bool) -> bool:
    """Whether a question to the terminal can be answered, and the answer read."""
    if sys.__stdin__ is None or sys.__stdout__ is None:
        return False
    if not (sys.__stdin__.isatty() and sys.__stdout__.isatty()):
        return False
    if os.tcgetpgrp(sys.__stdin__.fileno()) != os.getpgrp():
        return False  # a job in the background is stopped when it sets up the terminal
    return insist or "SSH_CONNECTION" not in os.environ
