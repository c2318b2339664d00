"""The pictures of the tutorials: `make docs`, or `python -m docs.make.pictures [PAGE]...`.

The commands of a page run in order, in a copy of the repository. Of a block with a picture right behind it
the last command is drawn, on a terminal of 80 columns.
"""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from docs.make.pages import ROOT, TUTORIALS, blocks, copy_repository
from jobs.demo.scenes import draw, png, scene

COLUMNS = 80
EXAMPLE = 10_023  # seed of the scene that is asked about; never trained on
# Without its fonts from the network: whoever reads has a monospaced one.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def main(pages: list[str]) -> None:
    """Draws all pictures of the pages; a command that fails ends it."""
    (ROOT / "docs/pictures").mkdir(exist_ok=True)
    (ROOT / "docs/pictures/scene.png").write_bytes(png(draw(scene(EXAMPLE))))
    for page in pages:
        with tempfile.TemporaryDirectory() as folder:
            copy = copy_repository(Path(folder) / "copy")
            env = environment(copy, cache=Path(folder) / "cache")
            for block in (one for one in blocks(page, "bash") if not one.mark):
                *before, last = block.commands
                for command in before:
                    subprocess.run(["bash", "-ec", command], cwd=copy, env=env, check=True)
                target = ROOT / "docs" / block.picture
                if block.picture:
                    target.write_text(as_svg(last, on_terminal(last, copy, env)), encoding="utf-8")
                else:
                    subprocess.run(["bash", "-ec", last], cwd=copy, env=env, check=True)


def environment(copy: Path, *, cache: Path) -> dict[str, str]:
    """What a command of a page finds: this Python's cogbatch with the copy's code, and an empty cache."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PYTHONPATH": str(copy), "PATH": path, "COGBATCH_CACHE": str(cache)}


def on_terminal(command: str, folder: Path, env: Mapping[str, str]) -> str:
    """What the command writes to a terminal of 80 columns. Raises CalledProcessError: it fails."""
    ours, theirs = pty.openpty()
    terminal = {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    clean = {key: value for key, value in env.items() if key != "NO_COLOR"} | terminal
    words = ["bash", "-ec", command]
    process = subprocess.Popen(words, cwd=folder, stdout=theirs, stdin=subprocess.DEVNULL, env=clean)
    os.close(theirs)
    written = io.BytesIO()
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        written.write(data)
    os.close(ours)
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, command)
    return written.getvalue().decode().replace("\r\n", "\n")


def as_svg(command: str, output: str) -> str:
    """The command and its output as a picture of a terminal."""
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(Text(f"$ {command}", "bold"))
    console.print(Text.from_ansi(output.rstrip("\n")))
    return console.export_svg(title="", code_format=FORMAT, unique_id="terminal")


if __name__ == "__main__":
    main(sys.argv[1:] or TUTORIALS)
