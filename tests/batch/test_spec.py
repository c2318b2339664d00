"""Laws of the job spec: checked whole, refused with every mistake named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from cogbatch.batch.spec import load_spec, parse_generation, parse_spec
from cogbatch.errors import JobError
from cogbatch.types import GenerationParams, Quantization

MINIMAL = {"model": {"checkpoint": "m"}, "input": {"path": "d"}, "output": {"path": "o"}}

DESIGN = """
name: demo
model: {checkpoint: jobs/demo/checkpoint, tokenizer: jobs/demo/tokenizer, dtype: float32, quantization: null, version: base}
input: {path: "jobs/demo/data/*.parquet", format: auto, id_column: id, image_column: image, prompt_column: null, prompt: "Describe the image.", columns: [scene]}
generation: {num_candidates: 8, strategy: sample, temperature: 0.8, max_new_tokens: 64, seed: 0}
output: {path: runs/demo, shard_size: auto}
cluster: {address: local, min_workers: 1, max_workers: 2, gpus_per_worker: 0, cpus_per_worker: 1}
errors: {max_error_rate: 0.05, shard_attempts: 2, stall_timeout_s: 600}
"""  # noqa: E501


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return path


def test_the_documented_spec_is_accepted_with_its_values(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, DESIGN))
    assert spec.generation == GenerationParams(num_candidates=8, temperature=0.8, max_new_tokens=64)
    assert (spec.model.version, spec.input.columns, spec.cluster.max_workers) == ("base", ("scene",), 2)


def test_defaults_of_generation_are_those_of_the_python_api() -> None:
    assert parse_spec(MINIMAL).generation == GenerationParams()


@pytest.mark.parametrize("field", dataclasses.fields(GenerationParams), ids=lambda field: field.name)
def test_every_generation_field_is_a_key(field: dataclasses.Field[object]) -> None:
    default = getattr(GenerationParams(), field.name)
    spec = parse_spec({**MINIMAL, "generation": {field.name: default}})
    assert getattr(spec.generation, field.name) == default


def test_all_mistakes_are_reported_at_once_with_the_nearest_key() -> None:
    wrong = {
        "model": {"chekpoint": "m", "dtype": "int8"},
        "input": {"limit": 0, "format": "parket", "colums": [], "columns": [1], "image_column": ""},
        "generation": {"temprature": 1.0, "num_candidates": "many"},
        "outputs": {"path": "o"},
        "temperature": 1,
    }
    with pytest.raises(JobError) as caught:
        parse_spec(wrong, where="job.yaml")
    message = str(caught.value)
    for part in (
        "job.yaml: 14 mistakes",
        "input.path is required",
        "input.format='parket'",
        "unknown key input.colums (did you mean columns?)",
        "input.columns.0=1",
        "input.image_column=''",
        "model.checkpoint is required",
        "model.dtype='int8': input should be 'auto', 'float32'",
        "unknown key model.chekpoint (did you mean checkpoint?)",
        "input.limit=0",
        "unknown key generation.temprature (did you mean temperature?)",
        "generation.num_candidates='many'",
        "output is required",
        "unknown key outputs (did you mean output?)",
        "unknown key temperature (did you mean generation.temperature?)",
    ):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "override",
    [
        *[
            "cluster.gpus_per_worker=.inf",
            "cluster.gpus_per_worker=.nan",
            "cluster.max_workers=99999999",
        ],
        *["cluster.cpus_per_worker=1e30", "errors.stall_timeout_s=.inf", "errors.stall_timeout_s=5e-324"],
        *["errors.stall_timeout_s=1e10", "errors.max_error_rate=.nan"],
    ],
)
def test_numbers_that_no_machine_can_hold_are_refused_by_their_key(override: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(JobError, match=f"1 mistake: {key}="):
        parse_spec(MINIMAL, overrides=[override])


def test_what_a_section_refuses_is_said_without_the_words_of_pydantic() -> None:
    with pytest.raises(JobError, match=r"cluster: min_workers 2 is above max_workers 1$"):
        parse_spec({**MINIMAL, "cluster": {"min_workers": 2}})


def test_several_columns_may_form_the_id() -> None:
    spec = parse_spec({**MINIMAL, "input": {"path": "d", "id_column": ["a", "b"]}})
    assert spec.input.id_columns == ("a", "b")


def test_overrides_beat_the_file_and_are_yaml(tmp_path: Path) -> None:
    overrides = ["generation.seed=7", "input.columns=[a, b]", "model.version=null", "errors.max_error_rate=1"]
    spec = load_spec(write(tmp_path, DESIGN), overrides=overrides)
    assert (spec.generation.seed, spec.input.columns, spec.model.version) == (7, ("a", "b"), None)
    assert spec.errors.max_error_rate == 1


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("seed", "expected key=value"),
        ("name.first=x", "name is a value"),
        ("generation.sed=1", r"generation\.sed .*seed"),
        ("input.columns=[a", "not valid YAML"),
    ],
)
def test_a_wrong_override_is_refused(tmp_path: Path, override: str, match: str) -> None:
    with pytest.raises(JobError, match=match):
        load_spec(write(tmp_path, DESIGN), overrides=[override])


@pytest.mark.parametrize(
    ("text", "match"),
    [("a: [", "not valid YAML"), ("- a", "expected a mapping"), ("", "expected a mapping")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(JobError, match=match):
        load_spec(write(tmp_path, text))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(JobError, match=r"nowhere\.yaml: cannot read"):
        load_spec("nowhere.yaml")


def test_min_workers_above_max_workers_is_refused() -> None:
    with pytest.raises(JobError, match="min_workers 3 is above max_workers 2"):
        parse_spec({**MINIMAL, "cluster": {"min_workers": 3, "max_workers": 2}})


def test_keys_of_a_portfolio_are_checked_too() -> None:
    members = [{"prompts": "Describe it."}, {"prompt": "Why?", "share": "half"}]
    with pytest.raises(JobError) as caught:
        parse_generation({"strategy": "portfolio", "portfolio": members})
    message = str(caught.value)
    assert "unknown key generation.portfolio.0.prompts (did you mean prompt?)" in message
    assert "generation.portfolio.1.share='half'" in message


def test_generation_parameters_are_parsed_like_those_of_a_job() -> None:
    params = parse_generation({"num_candidates": 3}, overrides=["temperature=0.5", "strategy=beam"])
    assert params == GenerationParams(num_candidates=3, temperature=0.5, strategy="beam")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("null", None),
        ("int8", Quantization("int8")),
        ("{type: nf4}", Quantization("nf4", ("language", "vision", "vit"))),
        ("{type: nf4, parts: [vit, vision]}", Quantization("nf4", ("vision", "vit"))),
    ],
)
def test_quantization_is_a_type_or_a_type_of_parts(
    tmp_path: Path, written: str, meant: Quantization | None
) -> None:
    text = DESIGN.replace("quantization: null", f"quantization: {written}")
    assert load_spec(write(tmp_path, text)).model.quantization == meant


@pytest.mark.parametrize(
    ("written", "match"),
    [
        ("int4", r"model\.quantization\.type='int4': input should be 'int8' or 'nf4'"),
        ("{parts: [vit]}", r"model\.quantization\.type is required"),
        ("{type: nf4, part: [vit]}", r"unknown key model\.quantization\.part \(did you mean parts\?\)"),
        ("{type: nf4, parts: []}", r"model\.quantization: parts is \[\]: expected some of language, vision"),
        ("{type: nf4, parts: [head]}", r"model\.quantization\.parts\.0='head': input should be 'language'"),
        (
            "{type: nf4, parts: vit}",
            r"model\.quantization\.parts='vit': expected a list, for example \[vit\]",
        ),
    ],
)
def test_a_wrong_quantization_is_named(tmp_path: Path, written: str, match: str) -> None:
    with pytest.raises(JobError, match=match):
        load_spec(write(tmp_path, DESIGN.replace("quantization: null", f"quantization: {written}")))
