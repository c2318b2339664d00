"""Text of the data is text on a Markdown page, whatever it holds: read back by a CommonMark parser."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from cogbatch.eval.markdown import escaped, fenced, grid

PIECES = [
    "```",
    "`",
    "~~",
    "**",
    "*",
    "_",
    "|",
    "\\",
    "[",
    "](x)",
    "#",
    "<b>",
    "&amp;",
    " ",
    "\n",
    "a",
    "1",
    "猫",
]
NASTY = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


def cells(markdown: str) -> list[str]:
    """What each cell of the page's tables says; markup within one shows as its token's type."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    inline = [token.children or [] for token in tokens if token.type == "inline"]
    return ["".join(child.content or child.type for child in children) for children in inline]


@given(NASTY)
@example("~~a~~")
def test_an_escaped_text_is_read_as_itself_in_a_cell(text: str) -> None:
    line = " ".join(text.split())
    assert cells(grid(["a", "b"], [[escaped(text), "end"]])) == ["a", "b", line, "end"]


@given(NASTY)
@example("```")
def test_nothing_in_a_block_ends_it(text: str) -> None:
    (block, *rest) = MarkdownIt("commonmark").parse(fenced(text, "yaml"))
    assert (rest, block.type, block.info) == ([], "fence", "yaml")
    assert block.content == f"{text}\n"


def test_names_with_underscores_stay_as_they_are() -> None:
    assert escaped("max_new_tokens") == "max_new_tokens"
    assert escaped("_a_ *b*") == r"\_a\_ \*b\*"


def test_nothing_acts_on_a_terminal() -> None:
    assert escaped("a\x1b[31m") == r"a\\x1b\[31m"
