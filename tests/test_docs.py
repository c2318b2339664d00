"""The documentation keeps its word: commands are understood, specs are specs, links lead somewhere.

The commands of the tutorials are run, in order, as they are printed (marker slow).
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from cogbatch.batch.spec import JobSpec, load_spec, parse_generation, parse_spec
from cogbatch.batch.sweep_spec import load_sweep, parse_sweep
from cogbatch.cli import app
from cogbatch.decoding.params import check_params
from cogbatch.decoding.registry import strategy_names
from cogbatch.types import GenerationParams
from docs.make.pages import (
    PAGES,
    ROOT,
    TUTORIALS,
    Block,
    Command,
    blocks,
    commands,
    copy_repository,
    links,
    specs_with_comments,
    text_of,
)
from docs.make.pictures import environment
from docs.make.reference import TARGET, reference

OURS = ("jobs/", "docs/", "tests/", "cogbatch/", "cluster.yaml")  # files that must be in the repository
SECTIONS: dict[str, Any] = {"model": {"checkpoint": "m"}, "input": {"path": "p"}, "output": {"path": "o"}}
TIMEOUT_S = 900
GROUP: Any = typer.main.get_command(app)
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def understand(words: list[str]) -> None:
    """Raises unless the command exists, with its options, keys, and files of the repository."""
    program, *arguments = words
    for word in arguments:
        if word.startswith(OURS):
            assert list(ROOT.glob(word.rstrip("/"))), f"{word} is not in the repository"
    if program == "cogbatch":
        understand_ours(arguments)
    elif program == "make":
        assert set(arguments) <= set(
            re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        )
    elif arguments[:2] == ["-m", "pip"] or program == "pip":
        for extra in re.findall(r"\[([\w,]+)\]", " ".join(arguments)):
            assert set(extra.split(",")) <= set(EXTRAS)
    elif arguments[:1] == ["-c"]:
        compile(arguments[1], "a command", "exec")
    elif program == "python":
        assert find_spec(arguments[arguments.index("-m") + 1]), "no such module"
    elif program != "cat":
        raise AssertionError(f"{program} is not known here: mark its block as not checked, with a reason")


def understand_ours(arguments: list[str]) -> None:
    """Parsed as the command line parses it, but not run; wrong usage raises."""
    if arguments[0].startswith("-"):
        return
    name, *rest = arguments
    assert name in GROUP.commands, f"no command {name}"
    with GROUP.commands[name].make_context(name, rest) as context:
        values = context.params
    overrides = values.get("overrides") or []
    if name == "generate":
        fields = {field.name for field in dataclasses.fields(GenerationParams)} | {"preset"}
        given = {key: value for key, value in values.items() if key in fields and value is not None}
        make_sense(parse_generation(given, overrides=overrides))
    elif name == "sweep":
        if (ROOT / values["spec"]).exists():
            load_sweep(ROOT / values["spec"], overrides=overrides)
    elif "job" in values and (ROOT / values["job"]).exists():
        make_sense(load_spec(ROOT / values["job"], overrides=overrides).generation)
    elif overrides:
        make_sense(parse_spec(SECTIONS, overrides=overrides).generation)


def make_sense(params: GenerationParams) -> None:
    """Raises ValueError where they contradict each other; of a strategy from elsewhere nothing is known."""
    if params.strategy in strategy_names():
        check_params(params)


@pytest.mark.parametrize(
    "command", [c for page in PAGES for c in commands(page)] + specs_with_comments(), ids=str
)
def test_every_command_is_understood(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    understand(command.words)


@pytest.mark.parametrize(
    "wrong",
    [
        "cogbatch fly away",
        "cogbatch run job.yaml --fast",
        "cogbatch run job.yaml --set generation.sed=1",
        "cogbatch run jobs/no.yaml",
        "cogbatch run jobs/demo/job.yaml --set input.limit=0",
        "cogbatch generate m -p hello --set pool=3",
        "cogbatch generate m -p hello -n 4 --strategy greedy",
        "make coffee",
        "pip install 'cogbatch[coffee]'",
        "python -m jobs.demo.coffee",
        "ray start --head",
    ],
)
def test_a_wrong_command_is_found(wrong: str) -> None:
    """What the checks above are worth."""
    with pytest.raises(Exception):  # noqa: B017, PT011 # each kind has its own
        understand(Command("here", wrong).words)


@pytest.mark.parametrize("page", PAGES)
def test_commands_stand_in_blocks_that_are_checked(page: str) -> None:
    for block in blocks(page):
        if block.language in ("bash", "python", "yaml"):
            continue
        for line in block.text.splitlines():
            assert not re.match(r"\$ |(\w+=\S+ )*(cogbatch|make|pip|python|ray) ", line), f"{block}: {line}"


@pytest.mark.parametrize("page", PAGES)
def test_a_block_that_is_not_checked_gives_a_reason(page: str) -> None:
    text = text_of(page)
    marks = re.findall(r"<!-- not (?:run|checked)[^\n]*", text)
    marked = [block for block in blocks(page) if block.mark]
    assert len(marks) == len(marked), "a mark stands right before its block"
    for block in marked:
        assert len(block.reason.split()) >= 3, f"{block}: {block.reason}"


@pytest.mark.parametrize(
    "block", [b for page in PAGES for b in blocks(page, "yaml") if b.mark != "not checked"], ids=str
)
def test_every_spec_is_one(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page may show a part of a spec: what is required and not shown is filled in."""
    tree = yaml.safe_load(block.text)
    if "job" in tree:
        monkeypatch.chdir(ROOT)
        parse_sweep(tree, where=str(block))
        return
    assert set(tree) <= set(JobSpec.model_fields), f"{block}: no keys of a job"
    filled = {
        name: {**SECTIONS.get(name, {}), **tree.get(name, {})} for name in {*SECTIONS, *tree} - {"name"}
    }
    make_sense(parse_spec(filled, where=str(block)).generation)


@pytest.mark.parametrize("block", [b for page in PAGES for b in blocks(page, "python")], ids=str)
def test_every_python_block_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file(page: str) -> None:
    for target in links(page):
        assert ((ROOT / page).parent / target).exists(), target


def test_the_reference_is_what_the_code_says() -> None:
    assert TARGET.read_text(encoding="utf-8") == reference(), "run make docs"


def test_everything_in_the_reference_has_a_meaning() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|.*\| ([^|]*) \|$", reference(), flags=re.MULTILINE)
    assert len(rows) > 150
    assert [name for name, meaning in rows if not meaning.strip()] == []


def test_every_test_that_a_page_names_exists() -> None:
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", text_of(page))}
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), flags=re.MULTILINE)
    }
    assert len(named) > 20
    assert named <= defined, named - defined


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS)
def test_every_command_of_a_tutorial_works_as_it_is_printed(page: str, tmp_path: Path) -> None:
    """In a copy of the repository, in order; a command that fails ends the test with what it said."""
    copy = copy_repository(tmp_path / "copy")
    env = environment(copy, cache=tmp_path / "cache")
    for block in blocks(page, "bash"):
        if block.mark:
            continue
        for command in block.commands:
            done = subprocess.run(
                ["bash", "-ec", command], cwd=copy, env=env, capture_output=True, text=True, timeout=TIMEOUT_S
            )
            assert done.returncode == 0, f"{block}: {command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
