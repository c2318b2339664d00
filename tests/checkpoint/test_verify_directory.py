"""What verify says of a directory's files: each ill has its line, and nothing of the directory is run."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cogbatch.checkpoint.manifest import MANIFEST
from cogbatch.checkpoint.verify import hf_side
from cogbatch.checkpoint.verify.against import check_source
from cogbatch.checkpoint.verify.check import Check
from cogbatch.checkpoint.verify.directory import Contents, check_directory
from cogbatch.checkpoint.verify.hf_side import HfRequest
from cogbatch.checkpoint.verify.probes import make_probes, to_tensors
from cogbatch.checkpoint.verify.run import verify
from cogbatch.cli import main
from cogbatch.errors import CheckpointError
from cogbatch.model.directory import read_config
from tests.checkpoint.official import make_official, read_tensors, was_run, write_json, write_shards

Converted = Callable[[str], Path]
WEIGHTS = "model-00001-of-00001.safetensors"
EMBEDDINGS = "model.embed_tokens.weight"


@pytest.fixture
def model_dir(converted: Converted, tmp_path: Path) -> Path:
    """A writable model directory without tokenizer."""
    return Path(shutil.copytree(converted("tiny-a"), tmp_path / "model"))


def check(folder: Path) -> Contents:
    return check_directory(folder, on_check=lambda _: None)


def failures(folder: Path) -> dict[str, str]:
    """name -> detail of the checks that failed."""
    return {check.name: check.detail for check in check(folder).checks if check.status == "FAILED"}


def change_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def change_config(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((folder / "config.json").read_text())
    edit(values)
    write_json(folder / "config.json", values)


def test_a_conversion_passes_every_check(model_dir: Path) -> None:
    seen: list[Check] = []
    contents = check_directory(model_dir, on_check=seen.append)
    assert [(c.name, c.status) for c in contents.checks] == [
        (name, "ok") for name in ("manifest", "files", "config", "tensors", "finite", "fingerprint", "code")
    ]
    assert tuple(seen) == contents.checks
    assert contents.runs_own_code
    assert contents.dtype == "float32"


@pytest.mark.parametrize("place", [0.2, 0.5, 0.9])
def test_one_flipped_bit_is_seen_though_size_and_time_are_the_same(model_dir: Path, place: float) -> None:
    file = model_dir / WEIGHTS
    data, stat = bytearray(file.read_bytes()), file.stat()
    data[int(len(data) * place)] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    found = failures(model_dir)
    assert found["files"] == f"{WEIGHTS} changed since the conversion; copy again, or convert again"
    assert "is not the manifest's" in found["fingerprint"]


def test_a_missing_file_is_named(model_dir: Path) -> None:
    (model_dir / "visual.py").unlink()
    found = failures(model_dir)
    assert found["files"].startswith("visual.py missing since the conversion")
    assert found["code"].startswith("visual.py missing: not run")


def test_missing_weights_and_a_truncated_file_are_named(model_dir: Path) -> None:
    file = model_dir / WEIGHTS
    file.write_bytes(file.read_bytes()[:-1000])
    assert WEIGHTS in failures(model_dir)["tensors"]
    assert "copy it again" in failures(model_dir)["tensors"]
    file.unlink()
    contents = check(model_dir)
    assert not contents.is_readable
    assert f"{WEIGHTS} missing" in failures(model_dir)["tensors"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_is_named_with_its_tensor(model_dir: Path, value: float) -> None:
    change_tensors(model_dir, lambda tensors: tensors[EMBEDDINGS][3, 5].fill_(value))
    assert failures(model_dir)["finite"] == f"NaN or infinity in {EMBEDDINGS}; copy it again"


def test_missing_unknown_and_misshapen_tensors_are_named(model_dir: Path) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norms.weight"] = tensors.pop("model.norm.weight")
        tensors[EMBEDDINGS] = tensors[EMBEDDINGS][:-1].clone()

    change_tensors(model_dir, edit)
    found = failures(model_dir)["tensors"]
    assert "1 missing: model.norm.weight" in found
    assert "1 not CogVLM's: model.norms.weight" in found
    assert f"{EMBEDDINGS} [511, 64] instead of [512, 64]" in found
    assert "2 not where model.safetensors.index.json says: model.norm.weight, model.norms.weight" in found


def test_a_tensor_of_another_kind_is_named(model_dir: Path) -> None:
    change_tensors(
        model_dir, lambda tensors: tensors.update({EMBEDDINGS: tensors[EMBEDDINGS].to(torch.int8)})
    )
    assert f"neither float32, float16 nor bfloat16: {EMBEDDINGS}" in failures(model_dir)["tensors"]


def test_rotary_tables_are_those_of_the_configuration(model_dir: Path) -> None:
    name = "model.layers.1.self_attn.rotary_emb.inv_freq"
    change_tensors(model_dir, lambda tensors: tensors[name].mul_(1.001))
    assert name in failures(model_dir)["finite"]


def test_an_incomplete_configuration_lists_what_it_lacks(model_dir: Path) -> None:
    def edit(values: dict[str, Any]) -> None:
        del values["rms_norm_eps"], values["auto_map"], values["vision_config"]["patch_size"]

    change_config(model_dir, edit)
    found = failures(model_dir)
    assert found["config"] == (
        "config.json lacks auto_map, rms_norm_eps, vision_config.patch_size; convert again"
    )
    assert "auto_map lacks AutoConfig" in found["code"]


@pytest.mark.parametrize("content", ["{", "[]", None])
def test_a_configuration_that_is_none_fails_and_the_rest_is_still_checked(
    model_dir: Path, content: str | None
) -> None:
    (model_dir / "config.json").unlink()
    if content is not None:
        (model_dir / "config.json").write_text(content)
    found = failures(model_dir)
    assert "config.json" in found["config"]
    assert "config.json" in found["files"]
    assert check(model_dir).config is None


def test_a_damaged_manifest_fails(model_dir: Path) -> None:
    (model_dir / MANIFEST).write_text("{}")
    assert "damaged" in failures(model_dir)["manifest"]


def change_manifest(folder: Path, **values: Any) -> None:
    write_json(folder / MANIFEST, json.loads((folder / MANIFEST).read_text()) | values)


def test_a_manifest_without_the_weights_fails(model_dir: Path) -> None:
    change_manifest(model_dir, files={})
    assert failures(model_dir)["files"] == (
        f"the manifest has no sha256 of config.json, model.safetensors.index.json, {WEIGHTS}; convert again"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": None}, "source is None"),
        ({"source": "x"}, "source is 'x'"),
        ({"source": {"name": "x", "files": None}}, "source.files is None"),
        ({"options": []}, r"options is []"),
    ],
)
def test_a_manifest_of_wrong_types_fails_and_the_rest_is_still_checked(
    model_dir: Path, golden: Path, values: dict[str, Any], message: str
) -> None:
    change_manifest(model_dir, **values)
    contents = check(model_dir)
    assert [c.name for c in contents.checks if c.status == "FAILED"] == ["manifest"]
    assert f"{MANIFEST}: damaged ({message}, expected an object)" in contents.checks[0].detail
    expected = "ok" if "options" in values else "FAILED"
    assert check_source(golden / "tiny-a" / "ckpt", contents.manifest).status == expected


@pytest.mark.parametrize("name", ["modeling_cogvlm.py", "custom_generate/generate.py"])
def test_code_that_is_not_ours_is_named_and_not_to_be_run(model_dir: Path, name: str) -> None:
    (model_dir / name).parent.mkdir(exist_ok=True)
    (model_dir / name).write_text("raise SystemExit('run')\n")
    contents = check(model_dir)
    assert not contents.runs_own_code
    assert failures(model_dir)["code"] == (
        f"{name} not of this version: not run, cogbatch's own classes instead; convert again"
    )


def test_code_named_by_the_configuration_must_be_ours_too(model_dir: Path) -> None:
    entry = "someone/else--modeling_cogvlm.CogVLMForCausalLM"
    change_config(model_dir, lambda values: values["auto_map"].update(AutoModelForCausalLM=entry))
    assert not check(model_dir).runs_own_code
    assert f"auto_map names {entry}" in failures(model_dir)["code"]


def test_code_of_another_version_is_a_warning_where_the_manifest_knows_it(model_dir: Path) -> None:
    manifest = json.loads((model_dir / MANIFEST).read_text())
    text = (model_dir / "visual.py").read_text() + "# of another version\n"
    (model_dir / "visual.py").write_text(text)
    manifest["files"]["visual.py"] = hashlib.sha256(text.encode()).hexdigest()
    write_json(model_dir / MANIFEST, manifest)
    contents = check(model_dir)
    assert {c.name: c.status for c in contents.checks}["code"] == "warning"
    assert not contents.runs_own_code


@pytest.mark.parametrize("name", ["tiny-a", "tiny-2"])
def test_an_official_directory_has_no_manifest_and_warns_of_its_code(
    converted: Converted, tmp_path: Path, name: str
) -> None:
    folder = make_official(converted(name), tmp_path / "official", dtype="bfloat16")
    contents = check(folder)
    assert [(c.name, c.status) for c in contents.checks] == [
        ("manifest", "ok"),
        ("config", "ok"),
        ("tensors", "ok"),
        ("finite", "ok"),
        ("code", "warning"),
    ]
    assert contents.checks[0].detail.startswith("none")
    assert not contents.runs_own_code
    assert contents.dtype == "bfloat16"


def test_an_index_that_names_another_shard_is_seen(converted: Converted, tmp_path: Path) -> None:
    folder = make_official(converted("tiny-a"), tmp_path / "official")
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"][EMBEDDINGS] = "model-00003-of-00003.safetensors"
    write_json(file, index)
    assert f"1 not where {file.name} says: {EMBEDDINGS}" in failures(folder)["tensors"]


def test_official_code_is_never_run(converted: Converted, tmp_path: Path) -> None:
    folder = make_official(converted("tiny-a"), tmp_path / "official")
    (folder / "custom_generate").mkdir()
    shutil.copy(folder / "visual.py", folder / "custom_generate" / "generate.py")
    result = verify(folder)
    assert result.ok, [c.line for c in result.checks]
    assert {c.name: c.detail for c in result.checks}["loads"].startswith(
        "cogbatch's classes: CogVLMForCausalLM"
    )
    assert not was_run(folder)


def test_the_command_says_one_line_per_check_and_fails_with_one(
    converted: Converted, tmp_path: Path, tokenizer_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(converted("tiny-a"), tmp_path / "model"))
    for file in tokenizer_dir.iterdir():
        shutil.copy(file, folder)
    with pytest.raises(SystemExit) as caught:
        main(["verify", str(folder), "--json"])
    *lines, summary, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert lines == [f"{c['status']:<8} {c['name']}: {c['detail']}" for c in result["checks"]]
    names = [c["name"] for c in result["checks"]]
    assert names[-4:] == ["code", "loads", "inference", "generates"]
    # The tokenizer came after the conversion, so the fingerprint in the manifest is of another model.
    assert caught.value.code == 1
    assert [c["name"] for c in result["checks"] if c["status"] == "FAILED"] == ["fingerprint"]
    assert summary == f"{folder}: FAILED (fingerprint)"
    assert "plain transformers, trust_remote_code: CogVLMForCausalLM in float32" in lines[-3]


def report_of(folder: Path, work: Path) -> hf_side.HfReport:
    work.mkdir()
    probes = {"image_short": make_probes(read_config(folder))["image_short"]}
    save_file(to_tensors(probes), work / "probes.safetensors")
    request = HfRequest(
        model=str(folder),
        own_code=False,
        dtype="float32",
        probes=str(work / "probes.safetensors"),
        num_greedy=0,
        prompt=None,
        out=str(work / "out.safetensors"),
        report="",
    )
    return hf_side.main(request)


def test_a_load_tells_what_was_made_up_and_what_is_not_finite(
    converted: Converted, model_dir: Path, tmp_path: Path
) -> None:
    well = report_of(model_dir, tmp_path / "well")
    assert (well["failed"], well["missing"], well["on_meta"], well["not_finite"]) == (None, [], [], [])
    change_tensors(model_dir, lambda tensors: tensors.pop("model.norm.weight"))
    assert report_of(model_dir, tmp_path / "lacking")["missing"] == ["model.norm.weight"]
    shutil.copy(converted("tiny-a") / WEIGHTS, model_dir)
    change_tensors(model_dir, lambda tensors: tensors["model.norm.weight"][0].fill_(float("nan")))
    assert report_of(model_dir, tmp_path / "nan")["not_finite"] == ["image_short"]
    (model_dir / WEIGHTS).write_bytes(b"nothing")
    broken = report_of(model_dir, tmp_path / "broken")
    assert (broken["failed"], broken["error"] != "") == ("load", True)


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan"), float("inf")])
def test_a_tolerance_must_be_above_0(model_dir: Path, tolerance: float) -> None:
    with pytest.raises(ValueError, match="expected a number above 0"):
        verify(model_dir, tolerance=tolerance)


def test_directories_of_the_other_kind_are_refused(golden: Path, model_dir: Path, tmp_path: Path) -> None:
    sat = golden / "tiny-a" / "ckpt"
    with pytest.raises(CheckpointError, match="a SAT checkpoint; convert it, then verify the result"):
        verify(sat)
    with pytest.raises(CheckpointError, match="--against takes a SAT checkpoint"):
        verify(model_dir, against=model_dir)
    with pytest.raises(CheckpointError, match="no such directory"):
        verify(tmp_path / "nothing")


def test_shards_written_anew_are_the_same_model(model_dir: Path) -> None:
    """The fingerprint names tensors, not files."""
    tensors = read_tensors(model_dir)
    (model_dir / WEIGHTS).unlink()
    write_shards(model_dir, tensors, num_shards=2)
    status = {c.name: c.status for c in check(model_dir).checks}
    assert (status["files"], status["tensors"], status["fingerprint"]) == ("FAILED", "ok", "ok")
