"""Text of the data as plain text of a Markdown page, and the page's tables and blocks. Decides no content."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cogbatch.dataset.rows import printable

# Within a word an underscore is only itself: num_tokens stays as it is.
MARKUP = re.compile(r"[\\`*~\[\]|#]|(?<!\w)_|_(?!\w)")


def escaped(text: str) -> str:
    """The text on one line, with what Markdown, HTML or a terminal would act on escaped; fits a cell."""
    line = MARKUP.sub(r"\\\g<0>", printable(" ".join(text.split())))
    return line.replace("&", "&amp;").replace("<", "&lt;")


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with its last line end. Cells are Markdown: of the data only as escaped()."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def fenced(text: str, language: str = "") -> str:
    """A code block that nothing in the text can end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}\n"
