"""The pictures of the tutorials: real commands on a terminal of 80 columns, as SVG. `make docs`.

Each command runs in a terminal of its own, in the current directory, where the commands of the tutorials that
come before it have run.
"""

from __future__ import annotations

import io
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.text import Text

FOLDER = Path(__file__).parents[1] / "pictures"
COLUMNS = 80
# Without its fonts from the network: whoever reads has a monospaced one.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def on_terminal(command: str) -> str:
    """What the command writes to a terminal of 80 columns. Raises CalledProcessError: it fails."""
    ours, theirs = pty.openpty()
    env = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    env |= {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "COLORTERM": "truecolor", "SSH_CONNECTION": "-"}
    process = subprocess.Popen(shlex.split(command), stdout=theirs, stdin=subprocess.DEVNULL, env=env)
    os.close(theirs)
    written = io.BytesIO()
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
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


def main(name: str, command: str) -> None:
    """Writes docs/pictures/NAME.svg."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.svg").write_text(as_svg(command, on_terminal(command)), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
