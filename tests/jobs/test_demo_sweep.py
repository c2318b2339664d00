"""The demo's sweep keeps its word, on the real model and a Ray of its own; about two minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cogbatch.batch.sweep_spec import load_sweep
from jobs.demo.check import check
from tests.recount import disagreements

ROOT = Path(__file__).parents[2]
SPEC = "jobs/demo/sweep.yaml"


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    command = [sys.executable, "-c", "from cogbatch.cli import main; main()", *arguments]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def cogbatch(*arguments: str) -> str:
    """What one prints that works."""
    done = call(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_has_twelve_settings_on_scenes_that_make_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sweep = load_sweep(SPEC)
    assert len(sweep.points) == 12
    (path,) = {point.spec.input.path for point in sweep.points}
    assert f"\n{path}: " in (ROOT / "Makefile").read_text()


@pytest.mark.slow
@pytest.mark.ray
def test_its_table_agrees_with_the_parts_and_points_with_jobs_run_alone(tmp_path: Path) -> None:
    path = tmp_path / "sweep"
    small = ["--set", "input.path=jobs/demo/data/*.parquet", "--set", f"output.path={path}", "--limit", "16"]
    printed = cogbatch("sweep", SPEC, *small, "--json", "--recommend", "correct>=0.5")
    result = json.loads(printed.splitlines()[-1])
    assert [point["items"] for point in result["points"]] == [16] * 12
    assert result["recommended"]["meets"] is True
    compared, wrong, uncounted = disagreements(path, check)
    assert (compared > 12 * 24, wrong) == (True, [])
    ends = {name for name in uncounted if name.endswith(("_low", "_high"))}
    assert set(uncounted) - ends == {"self_bleu", "self_bleu_items"}
    failing = call("sweep", SPEC, *small, "--set", "judge.checker=builtins:divmod")
    assert failing.returncode == 1
    assert "Finished parts are kept: mend the judge" in failing.stderr
    for name in ("dpp-of-32", "strategy-arithmetic_temperature-0.8"):
        alone = tmp_path / name
        cogbatch("run", str(path / "points" / f"{name}.yaml"), "--set", f"output.path={alone}")
        for part in (alone / "parts").iterdir():
            ours = path / "points" / name / "parts" / part.name
            assert _content(ours) == _content(part), "bit for bit, whatever ran beside it"


def _content(part: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(part).drop_columns("seconds").to_pylist()
    return rows
