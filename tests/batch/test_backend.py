"""Laws of the real backend that need no model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cogbatch.batch.backend import Device, JobPlan, ReadyModel, WorkerPlan, cogvlm_backend
from cogbatch.batch.identity import fingerprint, job_identity
from cogbatch.batch.spec import ModelSpec, parse_spec
from cogbatch.dataset import InputOptions, open_dataset
from cogbatch.errors import CheckpointError, JobError
from cogbatch.types import GenerationParams, GenerationRequest

DEMO = Path(__file__).parents[2] / "jobs" / "demo"


def worker_plan(folder: Path, model: ReadyModel) -> WorkerPlan:
    """One text row, on the CPU."""
    data = folder / "data.jsonl"
    data.write_text('{"id": 1}\n')
    dataset = open_dataset(InputOptions(str(data), image_column=None, prompt="say"))
    return WorkerPlan(
        jobs=(JobPlan(str(folder / "run"), dataset, "j", GenerationParams()),),
        model=model,
        device="cpu",
        num_threads=1,
        stall_timeout_s=1.0,
        probe="p",
    )


def test_importing_what_describes_a_job_does_not_load_torch() -> None:
    program = "import sys, cogbatch.batch.job; print({'torch', 'transformers', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def model_spec(**changes: object) -> ModelSpec:
    """The demo's, as job.yaml has it."""
    values = {"checkpoint": str(DEMO / "checkpoint"), "tokenizer": str(DEMO / "tokenizer"), "version": "base"}
    return ModelSpec.model_validate({**values, "dtype": "float32", **changes})


@pytest.mark.parametrize(
    ("changes", "device", "match"),
    [
        (
            {"quantization": "int8"},
            "cuda",
            "model: quantization int8 does not work with dtype float32 on cuda: .*",
        ),
        ({"quantization": "int8"}, "cpu", None),
        ({"quantization": "nf4"}, "cuda", None),
        ({"quantization": "int8", "dtype": "auto"}, "cuda", None),  # known when it is converted
    ],
)
def test_quantization_that_cannot_work_is_refused_before_anything_is_converted(
    changes: dict[str, object], device: Device, match: str | None
) -> None:
    if match is None:
        cogvlm_backend().check_model(model_spec(**changes), device)
        return
    with pytest.raises(JobError, match=match):
        cogvlm_backend().check_model(model_spec(**changes), device)


def test_the_dtype_of_a_model_directory_is_known_beforehand(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"dtype": "float32"}')
    spec = model_spec(checkpoint=str(tmp_path), dtype="auto", quantization="int8")
    with pytest.raises(JobError, match="int8 does not work with dtype float32 on cuda"):
        cogvlm_backend().check_model(spec, "cuda")


def test_quantization_is_part_of_a_jobs_identity_however_it_is_spelt(tmp_path: Path) -> None:
    def identity(quantization: object) -> str:
        spec = parse_spec(
            {
                "model": {"checkpoint": "m", "quantization": quantization},
                "input": {"path": "d"},
                "output": {"path": str(tmp_path)},
            }
        )
        model = ReadyModel("m", "f", "base", "float32", quantization=spec.model.quantization)
        return fingerprint(job_identity(spec, model=model, dataset_fingerprint="d", shards=[]))

    assert identity("nf4") == identity({"type": "nf4", "parts": ["vit", "vision", "language"]})
    different = [None, "nf4", "int8", {"type": "nf4", "parts": ["language"]}]
    assert len({identity(one) for one in different}) == len(different)


def test_a_workers_engine_is_quantized_as_the_job_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COGBATCH_CACHE", str(tmp_path))
    backend = cogvlm_backend()
    requests = [GenerationRequest("a", None, "Describe the image.")]
    scores = {}
    for quantization in (None, "nf4", {"type": "nf4", "parts": ["vit"]}):
        model = backend.prepare(model_spec(quantization=quantization), lambda _: None)
        engine = backend.open_engine(worker_plan(tmp_path, model), lambda _: None)
        (output,) = engine.generate(requests, GenerationParams(max_new_tokens=4))
        scores[str(quantization)] = output.candidates[0].cumulative_logprob
    full, all_parts, tower = scores.values()
    assert full == tower, "a text does not see the tower"
    assert full != all_parts


def test_a_model_behind_a_url_is_checked_without_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COGBATCH_CACHE", str(tmp_path))
    check = cogvlm_backend().check_model
    url, tokenizer = f"file://{DEMO}/checkpoint", f"file://{DEMO}/tokenizer"
    check(ModelSpec(checkpoint=url, tokenizer=tokenizer), "cpu")
    assert not list(tmp_path.rglob("mp_rank_*"))
    with pytest.raises(CheckpointError, match="no tokenizer files"):
        check(ModelSpec(checkpoint=url), "cpu")
    with pytest.raises(CheckpointError, match="nothing there"):
        check(ModelSpec(checkpoint=f"file://{tmp_path}/nowhere"), "cpu")
