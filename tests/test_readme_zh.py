"""README.zh.md keeps step with README.md: what is not language is the same in both."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import pytest

from docs.make.pages import BLOCK, LINK, blocks, text_of

ENGLISH, CHINESE = "README.md", "README.zh.md"
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")


def outline(page: str) -> list[str]:
    """What each line is, in order, under its section's number: heading, paragraph, point of a list, row."""
    section, found = 0, []
    for line in filter(None, BLOCK.sub("(code)", text_of(page)).splitlines()):
        kind = re.match(r"#+ |- |\||!\[|\*|\(code\)|", line)
        section += line.startswith("#")
        found.append(f"section {section}: {kind[0].strip() if kind else ''}")
    return found


def code(page: str) -> list[str]:
    """Lines of the blocks, without comments, which are translated."""
    return [re.sub(r"\s+# .*", "", line) for block in blocks(page) for line in block.text.splitlines()]


def links(page: str) -> list[str]:
    """Targets of links and pictures, but for the one to the other language."""
    return [target for target in LINK.findall(text_of(page)) if not target.startswith("README")]


def spans(page: str) -> list[str]:
    """Names in code font: commands, keys, strategies, files."""
    return sorted(set(re.findall(r"`([^`\n]+)`", BLOCK.sub("", text_of(page)))))


def tables(page: str) -> list[list[str]]:
    """The names and numbers of every row; words may stand in another order."""
    rows = re.findall(r"^\|.*\|$", text_of(page), flags=re.MULTILINE)
    return [[*sorted(re.findall(r"`([^`]+)`", row)), *sorted(NUMBER.findall(row))] for row in rows]


def numbers(page: str) -> list[str]:
    """All numbers outside of blocks and links, as often as they come."""
    text = re.sub(r"\]\([^)]*\)", "]", BLOCK.sub("", text_of(page)))
    return sorted(NUMBER.findall(text))


@pytest.mark.parametrize("of", [outline, code, links, spans, tables, numbers], ids=lambda of: of.__name__)
def test_both_languages_have_the_same(of: Callable[[str], list[object]]) -> None:
    english, chinese = of(ENGLISH), of(CHINESE)
    missing = list((Counter(map(str, english)) - Counter(map(str, chinese))).elements())
    foreign = list((Counter(map(str, chinese)) - Counter(map(str, english))).elements())
    assert not missing, f"{CHINESE} lacks {of.__name__}: {missing}"
    assert not foreign, f"only {CHINESE} has {of.__name__}: {foreign}"
    assert english == chinese, f"{of.__name__} come in another order in {CHINESE}"


def test_each_language_leads_to_the_other() -> None:
    assert f"]({CHINESE})" in text_of(ENGLISH).splitlines()[2]
    assert f"]({ENGLISH})" in text_of(CHINESE).splitlines()[2]
