"""Conversion: values, names and dtypes; whole or not at all; bad input in one line each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cogbatch.checkpoint.convert import convert, parse_size
from cogbatch.checkpoint.layout import shipped_code
from cogbatch.checkpoint.manifest import check_files, model_fingerprint, read_manifest
from cogbatch.checkpoint.safetensors_writer import TensorSpec, write_safetensors
from cogbatch.errors import CheckpointError
from cogbatch.model.configuration_cogvlm import CogVLMConfig, CogVLMVisionConfig

SatCopy = Callable[..., Path]
Converted = Callable[[str], Path]


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: t for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}


def config_of(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return values


def test_tensors_are_the_sources_bit_for_bit(converted: Converted, golden: Path) -> None:
    source = torch.load(golden / "tiny-a" / "ckpt" / "1" / "mp_rank_00_model_states.pt")["module"]
    written = tensors_of(converted("tiny-a"))
    assert torch.equal(written["lm_head.weight"], source["mixins.lm.lm_head.weight"])
    assert torch.equal(
        written["model.layers.2.mlp.vision_mlp.up_proj.weight"],
        source["mixins.mlp.vision_dense_h_to_4h_list.2.weight"],
    )
    assert len(written) == 75 + 3


def test_ranks_give_the_very_model_that_one_file_gives(golden: Path, tmp_path: Path) -> None:
    one = convert(golden / "tiny-a" / "ckpt", tmp_path / "one", version="base")
    two = convert(golden / "tiny-a-mp2" / "ckpt", tmp_path / "two", version="base")
    assert two.fingerprint == one.fingerprint
    assert "merged 2 model-parallel ranks" in two.notes
    manifest = read_manifest(two.path)
    assert manifest is not None
    assert manifest["merged"] == [{"what": "model-parallel ranks", "count": 2}]
    assert [name for name in manifest["source"]["files"] if name.startswith("1/")] == [
        "1/mp_rank_00_model_states.pt",
        "1/mp_rank_01_model_states.pt",
    ]


def test_default_dtype_is_the_sources_own_and_rotary_tables_are_fp32(golden: Path, tmp_path: Path) -> None:
    report = convert(golden / "tiny-a-ds" / "ckpt", tmp_path / "out", version="base")
    written = tensors_of(tmp_path / "out")
    rotary = {name for name in written if "inv_freq" in name}
    assert {written[name].dtype for name in rotary} == {torch.float32}
    assert {written[name].dtype for name in written.keys() - rotary} == {torch.bfloat16}
    assert report.dtype == config_of(tmp_path / "out")["dtype"] == "bfloat16"
    # base 10000, D = 16: 10000^(-2i/16)
    assert written["model.layers.1.self_attn.rotary_emb.inv_freq"][1].item() == pytest.approx(
        10000 ** (-1 / 8)
    )


def test_kept_rotary_frequencies_are_the_stored_ones(golden: Path, tmp_path: Path) -> None:
    convert(golden / "tiny-a-ds" / "ckpt", tmp_path / "out", version="base", inv_freq="keep")
    config = config_of(tmp_path / "out")
    assert (config["rope_inv_freq"][1], config["rope_dtype"]) == (0.31640625, "bfloat16")
    assert tensors_of(tmp_path / "out")["model.layers.0.self_attn.rotary_emb.inv_freq"][1] == 0.31640625


def test_only_a_table_that_is_there_and_finite_can_be_kept(sat_copy: SatCopy, tmp_path: Path) -> None:
    key = "mixins.rotary.rotary_emb.inv_freq"
    broken = sat_copy(edit=lambda module: module[key].fill_(float("nan")))
    without = sat_copy("tiny-2", edit=lambda module: module.pop(key))
    for folder, message in ((broken, f"'{key}' holds NaN"), (without, f"no '{key}' to keep")):
        with pytest.raises(CheckpointError, match=message):
            convert(folder, tmp_path / "out", version="base", inv_freq="keep")
        convert(folder, tmp_path / "out", version="base", overwrite=True)
        assert tensors_of(tmp_path / "out")["model.layers.0.self_attn.rotary_emb.inv_freq"].isfinite().all()
        shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize(("name", "theta", "heads"), [("tiny-a", 10000.0, 4), ("tiny-2", 500000.0, 2)])
def test_config_has_every_value_explicit(converted: Converted, name: str, theta: float, heads: int) -> None:
    config = config_of(converted(name))
    assert config.keys() >= CogVLMConfig.__annotations__.keys()
    assert config["vision_config"].keys() >= CogVLMVisionConfig.__annotations__.keys()
    assert (config["rope_theta"], config["num_multi_query_heads"], config["rms_norm_eps"]) == (
        theta,
        heads,
        1e-5,
    )
    assert (config["model_type"], config["architectures"]) == ("cogvlm", ["CogVLMForCausalLM"])
    assert config["auto_map"]["AutoModelForImageTextToText"] == "modeling_cogvlm.CogVLMForCausalLM"


@pytest.mark.parametrize(
    ("version", "template"), [("base", "base"), ("vqa", "vqa"), ("chat_old", "chat"), ("chat", "inst")]
)
def test_templates_get_their_hugging_face_names(
    golden: Path, tmp_path: Path, version: str, template: str
) -> None:
    report = convert(golden / "tiny-a" / "ckpt", tmp_path / "out", version=version)
    assert report.template_version == config_of(tmp_path / "out")["template_version"] == template
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert any("official Hugging Face code does not know" in note for note in manifest["notes"]) == (
        version == "chat"
    )


def test_version_defaults_to_the_checkpoints_own(sat_copy: SatCopy, golden: Path, tmp_path: Path) -> None:
    folder = sat_copy(config={"text_processor_version": "vqa"})
    assert convert(folder, tmp_path / "out").template_version == "vqa"
    with pytest.raises(CheckpointError, match="pass --version"):
        convert(golden / "tiny-a" / "ckpt", tmp_path / "other")


def test_sharding_changes_neither_tensors_nor_fingerprint(
    golden: Path, converted: Converted, tmp_path: Path
) -> None:
    report = convert(
        golden / "tiny-a" / "ckpt",
        tmp_path / "out",
        dtype="float32",
        version="chat_old",
        max_shard_size="200KB",
    )
    shards = sorted(file.name for file in (tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 3
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    whole, parts = tensors_of(converted("tiny-a")), tensors_of(tmp_path / "out")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert report.fingerprint == model_fingerprint(tmp_path / "out") == model_fingerprint(converted("tiny-a"))
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == whole.keys()


def test_two_conversions_are_the_same_bytes(golden: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        convert(golden / "tiny-2" / "ckpt", tmp_path / name, version="base")
    files = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert files == sorted(file.name for file in (tmp_path / "b").iterdir())
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_manifest_names_sources_options_and_every_file(converted: Converted) -> None:
    folder = converted("tiny-a")
    manifest = read_manifest(folder)
    assert manifest is not None
    assert manifest["source"]["files"].keys() == {"model_config.json", "1/mp_rank_00_model_states.pt"}
    assert manifest["dropped"] == ["mixins.rotary.rotary_emb.inv_freq"]
    assert manifest["options"]["version"] == "chat_old"
    on_disk = {file.name for file in folder.iterdir()}
    assert manifest["files"].keys() | {"cogbatch_manifest.json"} == on_disk
    assert on_disk >= shipped_code().keys()
    assert check_files(folder) == []


def test_code_that_travels_imports_nothing_of_ours() -> None:
    assert not [
        name for name, code in shipped_code().items() if b"cogbatch" in code.replace(b"'cogbatch ", b"")
    ]


def test_progress_ends_at_the_total(golden: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = convert(
        golden / "tiny-a" / "ckpt",
        tmp_path / "out",
        version="base",
        on_progress=lambda *now: seen.append(now),
    )
    assert seen == sorted(seen)
    assert seen[-1] == (report.size_bytes, report.size_bytes)


def test_unmapped_keys_are_named_up_to_five_and_counted(sat_copy: SatCopy, tmp_path: Path) -> None:
    extra = {f"mixins.other.{i}": torch.zeros(1) for i in range(7)}
    folder = sat_copy(edit=lambda module: module.update(extra))
    with pytest.raises(
        CheckpointError, match=r"7 tensors have no Hugging Face name: 'mixins.other.0'.* 2 more"
    ):
        convert(folder, tmp_path / "out", version="base")


def test_missing_keys_are_named(sat_copy: SatCopy, tmp_path: Path) -> None:
    folder = sat_copy(edit=lambda module: module.pop("transformer.layers.1.attention.dense.weight"))
    with pytest.raises(CheckpointError, match=r"1 tensor has been left out.*layers\.1\.attention\.dense"):
        convert(folder, tmp_path / "out", version="base")


def test_wrong_shapes_are_named(sat_copy: SatCopy, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"lm_head.weight' has shape \[512, 64\].*\[600, 64\]"):
        convert(sat_copy(config={"vocab_size": 600}), tmp_path / "out", version="base")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_named_and_nothing_is_left(
    sat_copy: SatCopy, tmp_path: Path, bad: float
) -> None:
    folder = sat_copy(edit=lambda module: module["mixins.mlp.gate_proj.1.weight"].view(-1)[3:4].fill_(bad))
    with pytest.raises(CheckpointError, match=r"'mixins.mlp.gate_proj.1.weight' holds NaN"):
        convert(folder, tmp_path / "made" / "out", version="base")
    assert list((tmp_path / "made").iterdir()) == []


def test_overflow_of_float16_is_named(sat_copy: SatCopy, tmp_path: Path) -> None:
    folder = sat_copy(edit=lambda module: module["mixins.eva.boi"].fill_(1e6))
    with pytest.raises(CheckpointError, match=r"'mixins.eva.boi' does not fit into float16"):
        convert(folder, tmp_path / "out", version="base", dtype="float16")


def test_existing_output_is_replaced_only_when_told_and_only_a_model(golden: Path, tmp_path: Path) -> None:
    source, out = golden / "tiny-a" / "ckpt", tmp_path / "out"
    out.mkdir()
    (out / "diary.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not empty; pass --overwrite"):
        convert(source, out, version="base")
    with pytest.raises(CheckpointError, match=r"no config\.json, so it is not replaced"):
        convert(source, out, version="base", overwrite=True)
    (out / "diary.txt").unlink()
    convert(source, out, version="base")
    (out / "stale.safetensors").touch()
    convert(source, out, version="vqa", overwrite=True)
    assert config_of(out)["template_version"] == "vqa"
    assert not (out / "stale.safetensors").exists()
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".out")] == []


def test_output_and_source_may_not_contain_each_other(sat_copy: SatCopy) -> None:
    folder = sat_copy()
    for out in (folder, folder / "hf", folder.parent):
        with pytest.raises(CheckpointError, match="must not contain each other"):
            convert(folder, out, version="base", overwrite=True)


def test_what_is_no_sat_checkpoint_is_called_what_it_is(converted: Converted, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "neither").mkdir()
    (tmp_path / "neither" / "notes.txt").touch()
    for source, message in (
        (tmp_path / "nosuch", "nosuch: no such directory; expected a SAT checkpoint"),
        (tmp_path / "file", "file: a file; expected a SAT checkpoint"),
        (tmp_path / "neither", r"neither a SAT checkpoint .* nor .* found notes\.txt"),
        (converted("tiny-a"), "already a Hugging Face model directory"),
    ):
        with pytest.raises(CheckpointError, match=message):
            convert(source, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_arguments_outside_their_range_are_value_errors(golden: Path, tmp_path: Path) -> None:
    source = golden / "tiny-a" / "ckpt"
    with pytest.raises(ValueError, match="dtype is 'int8'"):
        convert(source, tmp_path / "out", dtype="int8")
    with pytest.raises(ValueError, match="inv_freq"):
        convert(source, tmp_path / "out", inv_freq="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_shard_size is 'big'"):
        convert(source, tmp_path / "out", max_shard_size="big")


def test_sizes_are_powers_of_a_thousand() -> None:
    assert [parse_size(text) for text in ("5GB", "200 kb", "1.5M", 7)] == [5 * 10**9, 200_000, 1_500_000, 7]


def test_writer_aligns_tensors_of_mixed_dtypes_for_the_library(tmp_path: Path) -> None:
    made = {
        "a": torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16),
        "b": torch.tensor(4.0),
        "c": torch.zeros(0, 2, dtype=torch.float16),
        "d": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    }
    specs = [TensorSpec(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in made.items()]
    written = write_safetensors(tmp_path, specs, make=made.__getitem__, max_shard_bytes=10**6)
    read = load_file(tmp_path / "model-00001-of-00001.safetensors")
    assert all(torch.equal(read[name], made[name]) and read[name].dtype == made[name].dtype for name in made)
    assert written.size_bytes == 6 + 4 + 0 + 24
