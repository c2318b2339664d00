"""The pages of the documentation as what can be checked of them: blocks, commands, links. Runs none of them.

A block of code is marked by a comment on the line before it, with a reason:
`<!-- not run: ... -->` in a tutorial, for a block that is only parsed;
`<!-- not checked: ... -->` for one with commands that are not ours, or that is no spec of ours.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("README*.md"),
        ROOT / "CONTRIBUTING.md",
        ROOT / "docs/custom_strategy/README.md",
        ROOT / "jobs/demo/README.md",
    )
)
TUTORIALS = [page for page in PAGES if page.startswith("docs/tutorial")]
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>not run|not checked): (?P<reason>[^\n]+?) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$(?:\n\n!\[[^\]]*\]\((?P<picture>pictures/[^)]+\.svg)\))?",
    re.DOTALL | re.MULTILINE,
)
INLINE = re.compile(r"`(cogbatch [a-z-]+ [^`]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@dataclass(frozen=True)
class Block:
    """A block of code. mark: "not run", "not checked" or nothing. line: from 1. picture: right behind it."""

    page: str
    line: int
    language: str
    text: str
    mark: str = ""
    reason: str = ""
    picture: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Its commands, a line each: continued lines are joined, comments stay."""
        joined = self.text.replace("\\\n", " ")
        return [line.strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")]


@dataclass(frozen=True)
class Command:
    """One command as a page has it. words: without comment, redirection, and what it is piped into."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text[:60]}"

    @property
    def words(self) -> list[str]:
        """The words that the program gets, the program's name first."""
        words = shlex.split(self.text, comments=True)
        ends = [words.index(end) for end in ("|", ">", "&&") if end in words]
        words = words[: min(ends, default=len(words))]
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        return [words[0].removeprefix(".venv/bin/"), *words[1:]] if words else []


def text_of(page: str) -> str:
    """The page as it is now."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[Block]:
    """The blocks of a page, in order, those of these languages or all."""
    text = text_of(page)
    found = [
        Block(
            page,
            text.count("\n", 0, match.start()) + 1 + bool(match["mark"]),
            match["language"],
            match["text"],
            match["mark"] or "",
            match["reason"] or "",
            match["picture"] or "",
        )
        for match in BLOCK.finditer(text)
    ]
    return [block for block in found if not languages or block.language in languages]


def commands(page: str) -> list[Command]:
    """The commands of a page that are to be understood: in blocks, and ours within sentences."""
    in_blocks = [
        Command(str(block), command)
        for block in blocks(page, "bash")
        if block.mark != "not checked"
        for command in block.commands
    ]
    return in_blocks + [Command(page, text) for text in in_sentences(page)]


def in_sentences(page: str) -> list[str]:
    """Our commands within prose."""
    return [" ".join(text.split()) for text in INLINE.findall(BLOCK.sub("", text_of(page)))]


def specs_with_comments() -> list[Command]:
    """The commands in comments of the job specs and of cluster.yaml, indented by three blanks."""
    files = [*sorted((ROOT / "jobs").glob("*.yaml")), ROOT / "cluster.yaml"]
    return [
        Command(path.name, re.split(r"\s{2,}", line.lstrip("# "))[0])
        for path in files
        for line in path.read_text().splitlines()
        if re.match(r"#   (\w+=\w+ )*cogbatch ", line)
    ]


def copy_repository(target: Path) -> Path:
    """The files that git knows, as they are now, copied to target."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def links(page: str) -> list[str]:
    """Files that a page links to, relative to it."""
    return [target for target in LINK.findall(text_of(page)) if "://" not in target]
