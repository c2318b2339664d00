"""Items and their candidates on a terminal, or as plain lines elsewhere. Reads nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cogbatch.dataset.rows import printable
from cogbatch.eval.difference import differences
from cogbatch.types import Candidate, RequestError

# The 16 colours of the terminal's own theme, so that they can be read on light and on dark.
UNLIKE, FAINT, WRONG = "bold magenta", "dim", "bold red"
MAX_WIDTH = 120


def screen(*, forced: bool = False) -> Console | None:
    """What to draw on; None where stdout is no terminal and plain lines are wanted. forced: draw anyway."""
    console = Console(force_terminal=True) if forced else Console(file=sys.stdout)
    if not console.is_terminal:
        return None
    console.width = min(console.width, MAX_WIDTH)
    return console


@dataclass(frozen=True)
class Shown:
    """One item, ready to be shown. title: its id. place: where it is in the input."""

    candidates: Sequence[Candidate]
    prompt: str | None = None
    error: RequestError | None = None
    title: str | None = None
    place: str = ""

    def sheet(self, image: RenderableType = "") -> Group:
        """For a terminal: name, image (drawn, or why there is none), prompt, and candidates or the error."""
        parts: list[RenderableType] = []
        if self.title is not None:
            parts.append(Text.assemble((printable(self.title), "bold"), "  ", (printable(self.place), FAINT)))
        if image:
            parts.append(image)
        if self.prompt is not None:
            parts.append(Text.assemble(("prompt  ", FAINT), _several_lines(self.prompt)))
        if self.error is not None:
            parts.append(Text.assemble(("error  ", WRONG), _error(self.error)))
        else:
            parts.append(_answers(self.candidates))
        return Group(*parts)

    def lines(self) -> list[str]:
        """For pipes and files: a line each, however long."""
        lines = [] if self.title is None else [f"{printable(self.title)}  {printable(self.place)}"]
        if self.prompt is not None:
            lines.append(f"prompt: {_one_line(self.prompt)}")
        if self.error is not None:
            return [*lines, f"error: {_error(self.error)}"]
        return [*lines, *map(_line, self.candidates, _remarks(self.candidates))]


def _answers(candidates: Sequence[Candidate]) -> RenderableType:
    """Candidates as a table; words unlike the first one's at that place are marked."""
    if not candidates:
        return Text("no candidates", FAINT)
    scored = any(candidate.score is not None for candidate in candidates)
    remarks = _remarks(candidates)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=FAINT, pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("nats/token", justify="right")
    if scored:
        table.add_column("score", justify="right")
    table.add_column("answer", ratio=1)
    if any(remarks):
        table.add_column("remarks", max_width=20)
    for candidate, said in zip(candidates, remarks, strict=True):
        pieces = differences(candidate.text.strip("\n"), candidates[0].text)
        marked = Text.assemble(
            *((_several_lines(piece.text), UNLIKE if piece.differs else "") for piece in pieces)
        )
        cells: list[RenderableType] = [str(candidate.index), _per_token(candidate)]
        if scored:
            cells.append("" if candidate.score is None else f"{candidate.score:.2f}")
        table.add_row(*cells, marked, *([Text(said, WRONG)] if any(remarks) else []))
    return Padding(table, (0, 0, 0, 1))


def _line(candidate: Candidate, remark: str) -> str:
    score = "" if candidate.score is None else f"score {candidate.score:.2f}"
    said = ", ".join(filter(None, (score, remark)))
    end = f"  ({said})" if said else ""
    return f"[{candidate.index}] {_per_token(candidate):>6}  {_one_line(candidate.text)}{end}"


def _remarks(candidates: Sequence[Candidate]) -> list[str]:
    """What else there is to say of each: flags, that it was cut, and its source where there are several."""
    several = len({candidate.source for candidate in candidates}) > 1
    return [
        printable(
            ", ".join(
                [
                    *candidate.flags,
                    *(["cut"] if candidate.finish_reason == "length" else []),
                    *([candidate.source] if several and candidate.source else []),
                ]
            )
        )
        for candidate in candidates
    ]


def _per_token(candidate: Candidate) -> str:
    if candidate.num_tokens < 1:
        return "-"
    return f"{candidate.cumulative_logprob / candidate.num_tokens:.2f}"


def _error(error: RequestError) -> str:
    return printable(f"{error.stage}/{error.type}: {error.message}")


def _several_lines(text: str) -> str:
    """The text without what could act on a terminal: its escapes are shown as such."""
    return "\n".join(printable(line.expandtabs(2)) for line in text.split("\n"))


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))
