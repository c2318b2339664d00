"""Images on a terminal: which way of drawing it takes, and that no terminal can hold it up."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from rich.text import Text

from cogbatch.cli.picture import HalfCells, drawing

ROOT = Path(__file__).parents[1]
PROGRAM = """
import os, sys
if "background" in sys.argv:  # a session's first process stays in the foreground, its child need not
    if os.fork():
        sys.exit(os.wait()[1])
    os.setpgid(0, 0)
from PIL import Image
from cogbatch.cli.picture import drawing
print("drawn by", type(drawing(Image.new("RGB", (8, 8)))).__module__)
"""


def draw_in_terminal(answers: dict[bytes, bytes], *arguments: str, **environment: str) -> bytes:
    """What PROGRAM writes to a terminal that answers these questions and no others."""
    pid, terminal = pty.fork()
    if pid == 0:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("SSH_")}
        os.environ.clear()
        os.environ.update(clean, PYTHONPATH=str(ROOT), **environment)
        os.execv(sys.executable, [sys.executable, "-c", PROGRAM, *arguments])
    written, until = b"", time.monotonic() + 30
    while b"drawn by" not in written or not written.endswith(b"\n"):
        assert time.monotonic() < until, written
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            new = os.read(terminal, 4096)
        except OSError:  # the child has closed it
            break
        written += new
        for question, reply in answers.items():
            if question in new:
                os.write(terminal, reply)
    os.close(terminal)
    os.waitpid(pid, 0)
    return written


SIXEL = {b"\x1b[c": b"\x1b[?62;4;22c"}
KITTY = {b"\x1b[c": b"\x1b[?62;c", b"\x1b_G": b"\x1b_Gi=1;OK\x1b\\"}


def test_a_terminal_that_never_answers_gets_half_cells() -> None:
    assert b"cogbatch.cli.picture" in draw_in_terminal({})


def test_a_terminal_gets_the_graphics_that_it_says_it_has() -> None:
    assert b"renderable.sixel" in draw_in_terminal(SIXEL)
    assert b"renderable.tgp" in draw_in_terminal(KITTY)


def test_over_ssh_and_in_the_background_nothing_is_asked() -> None:
    for written in (
        draw_in_terminal(SIXEL, SSH_CONNECTION="10.0.0.1 1 10.0.0.2 22"),
        draw_in_terminal(SIXEL, "background"),
    ):
        assert b"drawn by cogbatch.cli.picture" in written
        assert b"\x1b[c" not in written


def test_drawing_into_a_pipe_loads_no_library_for_it() -> None:
    code = PROGRAM + "print('textual_image' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-2:] == ["cogbatch.cli.picture", "False"]


def test_a_cell_is_two_pixels_one_above_the_other() -> None:
    image = Image.new("RGB", (1, 2))
    image.putpixel((0, 0), (255, 0, 0))
    image.putpixel((0, 1), (0, 0, 255))
    console = Console(width=20, force_terminal=True, color_system="truecolor")
    with console.capture() as capture:
        console.print(HalfCells(image, 1, 1))
    assert capture.get().startswith("\x1b[38;2;255;0;0;48;2;0;0;255m▀")


@pytest.mark.parametrize(
    ("size", "cells"), [((100, 100), (28, 14)), ((4000, 10), (40, 1)), ((10, 4000), (1, 14))]
)
def test_the_shape_of_an_image_is_kept_within_40_by_14_cells(
    size: tuple[int, int], cells: tuple[int, int]
) -> None:
    console = Console(width=80, force_terminal=True, color_system="truecolor")
    with console.capture() as capture:
        console.print(drawing(Image.new("RGB", size)))
    lines = Text.from_ansi(capture.get()).plain.splitlines()
    assert (max(map(len, lines)), sum("▀" in line for line in lines)) == cells


def test_without_colours_there_is_no_picture() -> None:
    console = Console(width=80, force_terminal=True, no_color=True)
    with console.capture() as capture:
        console.print(drawing(Image.new("RGB", (9, 9))))
    assert capture.get().strip() == ""
