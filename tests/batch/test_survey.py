"""Laws of what CogVLM's side says before a job runs: on the demo's checkpoint, as it is and converted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cogbatch.batch.spec import JobSpec, load_spec
from cogbatch.batch.survey import memory_share, survey
from cogbatch.checkpoint.convert import convert
from cogbatch.dataset import open_dataset
from cogbatch.dataset.rows import Row
from cogbatch.errors import CheckpointError

DEMO = Path(__file__).parents[2] / "jobs" / "demo"


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobSpec:
    monkeypatch.setenv("COGBATCH_CACHE", str(tmp_path / "cache"))
    model = f"model.checkpoint={DEMO / 'checkpoint'}", f"model.tokenizer={DEMO / 'tokenizer'}"
    return load_spec(DEMO / "job.yaml", overrides=[*model, f"input.path={DEMO / 'data' / '*.parquet'}"])


def rows(spec: JobSpec, count: int = 3) -> list[Row]:
    dataset = open_dataset(spec.input)
    return list(dataset.read(dataset.shards(count)[0]))


def test_a_sat_checkpoint_is_surveyed_as_the_directory_it_becomes(spec: JobSpec, tmp_path: Path) -> None:
    found = survey(spec, rows(spec))
    assert not (tmp_path / "cache").exists(), "nothing is converted"
    convert(DEMO / "checkpoint", tmp_path / "hf", tokenizer=DEMO / "tokenizer", version="base")
    model = spec.model.model_copy(update={"checkpoint": str(tmp_path / "hf"), "tokenizer": None})
    converted = survey(spec.model_copy(update={"model": model}), rows(spec))
    assert found is not None
    assert converted is not None
    assert found.need == converted.need
    assert found.prompt_tokens == converted.prompt_tokens
    assert found.cards == converted.cards


def test_its_figures_are_those_of_the_demo(spec: JobSpec) -> None:
    """42-pixel images: 9 patches with boi, eoi and bos; 4 layers of 192; 8 rows of 64 tokens, float32."""
    found = survey(spec, rows(spec))
    assert found is not None
    assert (found.need.image_tokens, found.need.token_bytes) == (12, 2 * 4 * 192 * 4)
    assert (found.rows, found.new_tokens) == (8, 8 * 64)
    assert set(found.prompt_tokens) == {12 + found.need.text_tokens}
    assert found.errors == ()
    assert found.here.items == 8
    stored = survey(spec.model_copy(update={"model": spec.model.model_copy(update={"dtype": "auto"})}), [])
    assert stored is not None
    assert (stored.dtype, stored.need.weight_bytes * 2) == ("bfloat16", found.need.weight_bytes)


def test_rows_that_cannot_become_prompts_are_said_as_a_run_would_say_them(spec: JobSpec) -> None:
    good, *_ = rows(spec)
    long = replace(good, prompt="a red circle " * 500)
    found = survey(spec, [good, replace(good, image="gone.png"), long, replace(good, image=b"no image")])
    assert found is not None
    assert len(found.prompt_tokens) == 1
    assert [(error.stage, error.type) for error in found.errors] == [
        ("image", "ImageError"),
        ("prompt", "PromptError"),
        ("image", "ImageError"),
    ]


def test_what_is_wrong_with_a_checkpoint_that_is_here_is_an_error(spec: JobSpec, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    model = spec.model.model_copy(update={"checkpoint": str(tmp_path)})
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors weights"):
        survey(spec.model_copy(update={"model": model}), rows(spec))


@pytest.mark.parametrize(
    ("cluster", "num_cpus", "share"),
    [
        ({"max_workers": 1, "cpus_per_worker": 1}, 8, 1),
        ({"max_workers": 2, "cpus_per_worker": 1}, 8, 1 / 2),
        ({"max_workers": 100, "cpus_per_worker": 4}, 16, 1 / 4),  # no more start on one node
        ({"max_workers": 2, "cpus_per_worker": 8}, 4, 1),
        ({"max_workers": 8, "gpus_per_worker": 1}, 8, 1),
        ({"max_workers": 8, "gpus_per_worker": 2}, 8, 1),
        ({"max_workers": 8, "gpus_per_worker": 0.25}, 8, 1 / 4),
    ],
)
def test_workers_of_a_node_share_its_memory_and_a_card_is_shared_by_fractions(
    spec: JobSpec, cluster: dict[str, float], num_cpus: int, share: float
) -> None:
    changed = spec.cluster.model_copy(update=cluster)
    assert memory_share(changed, on_cuda="gpus_per_worker" in cluster, num_cpus=num_cpus) == share
