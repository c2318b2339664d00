"""docs/operations.md keeps its word: its commands are understood, its names are those of the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from cogbatch.cli import app

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "operations.md").read_text()
SPECS = sorted(path for path in (ROOT / "jobs").glob("*.yaml"))
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)


def commands() -> list[str]:
    """Every command of ours in a code block of the page, or in a comment of a spec or of cluster.yaml."""
    lines = [line for block in BLOCKS for line in block.splitlines()]
    comments = [line for path in (*SPECS, ROOT / "cluster.yaml") for line in path.read_text().splitlines()]
    lines += [line.lstrip("# ") for line in comments if line.startswith("#   ")]
    return [line[line.index("cogbatch ") :] for line in lines if re.match(r"(\w+=\w+ )*cogbatch ", line)]


def test_there_are_commands_to_look_at() -> None:
    used = {command.split()[1] for command in commands()}
    assert {"submit", "logs", "stop", "list", "status", "plan", "run"} <= used


@pytest.mark.parametrize("line", commands())
def test_every_command_is_understood(line: str) -> None:
    """Parsed with its options and arguments, not run; wrong usage raises."""
    _, name, *arguments = re.split(r"\s{2,}", line)[0].split(" ", 2)
    words = shlex.split(" ".join(arguments), comments=True)
    group = typer.main.get_command(app)
    command = group.commands[name]  # type: ignore[attr-defined]
    with command.make_context(name, words):
        pass


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", TEXT))
def test_every_file_it_links_to_exists(target: str) -> None:
    assert (ROOT / "docs" / target).exists()


def test_every_metric_is_documented() -> None:
    source = (ROOT / "cogbatch" / "batch" / "metrics.py").read_text()
    counters = set(re.findall(r'counter\("(\w+)"', source))
    assert counters == set(re.findall(r"`ray_cogbatch_(\w+)_total", TEXT))
    assert len(counters) == 5


def test_every_state_of_a_run_is_documented() -> None:
    source = (ROOT / "cogbatch" / "batch" / "status.py").read_text()
    states = set(re.findall(r'"(\w+)"', source.partition("def _state")[2].partition("def ")[0]))
    documented = set(re.findall(r"^\| `([a-z]+)` \|", TEXT, flags=re.MULTILINE))
    assert documented == states
    assert len(states) == 4
