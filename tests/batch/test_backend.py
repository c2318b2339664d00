"""Laws of the real backend that need no model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cogbatch.batch.backend import ReadyModel, WorkerPlan, cogvlm_backend
from cogbatch.dataset import InputOptions, open_dataset
from cogbatch.errors import CheckpointError
from cogbatch.types import GenerationParams


@pytest.mark.parametrize("absent", ["model", "tokenizer"])
def test_a_model_that_only_the_driver_has_is_named_with_the_way_out(tmp_path: Path, absent: str) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"id": 1}\n')
    (tmp_path / ("tokenizer" if absent == "model" else "model")).mkdir()
    model = ReadyModel(
        str(tmp_path / "model"), "f", "base", "float32", tokenizer_path=str(tmp_path / "tokenizer")
    )
    plan = WorkerPlan(
        run_path=str(tmp_path / "run"),
        dataset=open_dataset(InputOptions(str(data), image_column=None, prompt="say")),
        model=model,
        job_fingerprint="j",
        params=GenerationParams(),
        device="cpu",
        num_threads=1,
        stall_timeout_s=1.0,
        probe="p",
    )
    with pytest.raises(CheckpointError, match=rf"{absent} lies on the driver's disk: set COGBATCH_CACHE"):
        cogvlm_backend().open_engine(plan, lambda _: None)


def test_importing_what_describes_a_job_does_not_load_torch() -> None:
    program = "import sys, cogbatch.batch.job; print({'torch', 'transformers', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
