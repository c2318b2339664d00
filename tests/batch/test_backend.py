"""Laws of the real backend that need no model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cogbatch.batch.backend import cogvlm_backend
from cogbatch.batch.spec import ModelSpec
from cogbatch.errors import CheckpointError

DEMO = Path(__file__).parents[2] / "jobs" / "demo"


def test_importing_what_describes_a_job_does_not_load_torch() -> None:
    program = "import sys, cogbatch.batch.job; print({'torch', 'transformers', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_model_behind_a_url_is_checked_without_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COGBATCH_CACHE", str(tmp_path))
    check = cogvlm_backend().check_model
    url, tokenizer = f"file://{DEMO}/checkpoint", f"file://{DEMO}/tokenizer"
    check(ModelSpec(checkpoint=url, tokenizer=tokenizer))
    assert not list(tmp_path.rglob("mp_rank_*"))
    with pytest.raises(CheckpointError, match="no tokenizer files"):
        check(ModelSpec(checkpoint=url))
    with pytest.raises(CheckpointError, match="nothing there"):
        check(ModelSpec(checkpoint=f"file://{tmp_path}/nowhere"))
