"""The README keeps its word: its folders and commands exist, and its first command works for a stranger."""

import re
import subprocess
from pathlib import Path

import pyarrow.dataset
import pytest
import yaml

from cogbatch.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_folder_is_listed_and_exists() -> None:
    listed = set(re.findall(r"^\| `([a-z/]+)/` \|", README, flags=re.MULTILINE))
    packages = {f"cogbatch/{path.parent.name}" for path in (ROOT / "cogbatch").glob("*/__init__.py")}
    assert listed == packages | {"jobs", "tests"}


def test_every_command_exists() -> None:
    commands = {
        command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands
    }
    used = set(re.findall(r"bin/cogbatch ([a-z-]+) ", README))
    assert used <= commands
    assert {"convert", "run", "plan", "generate", "report", "sweep"} <= used


def test_the_demo_job_is_the_documented_one() -> None:
    job = yaml.safe_load((ROOT / "jobs/demo/job.yaml").read_text())
    assert job["model"]["checkpoint"] == "jobs/demo/checkpoint"
    assert job["generation"] == {
        "num_candidates": 8,
        "strategy": "sample",
        "temperature": 0.8,
        "max_new_tokens": 64,
        "seed": 0,
    }


@pytest.mark.slow
def test_a_stranger_gets_candidates_with_one_command(tmp_path: Path) -> None:
    """A clone, a fresh environment and `make demo`; about two minutes, most of it installation."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    first = subprocess.run(["make", "demo"], cwd=clone, capture_output=True, text=True, check=True)
    assert "report.html" in first.stdout
    rows = pyarrow.dataset.dataset(clone / "runs/demo/parts").to_table().to_pylist()
    assert len(rows) == 128
    assert {row["num_candidates"] for row in rows} == {8}
    assert len({row["model_fingerprint"] for row in rows}) == 1
    assert not [row["error"] for row in rows if row["error"]]
    parts = {path: path.stat().st_mtime_ns for path in (clone / "runs/demo/parts").iterdir()}
    second = subprocess.run(["make", "demo"], cwd=clone, capture_output=True, text=True, check=True)
    assert "nothing was redone" in second.stdout
    assert parts == {path: path.stat().st_mtime_ns for path in parts}
