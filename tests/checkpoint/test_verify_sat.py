"""SwissArmyTransformer runs the originals: our CogVLM for SAT is the official one, conversions are faithful.

Every test starts SAT in processes of its own, about ten seconds each.
"""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cogbatch.checkpoint.convert import convert, rotary_table
from cogbatch.checkpoint.names import ROTARY, tensor_names
from cogbatch.checkpoint.sat import find_sat_files
from cogbatch.checkpoint.sat_config import to_sat
from cogbatch.checkpoint.verify.against import run_sat
from cogbatch.checkpoint.verify.check import Check, Verification
from cogbatch.checkpoint.verify.run import TOLERANCE, verify
from cogbatch.cli import main
from tests.checkpoint.sat_builder import TINY, TINY_2, State, build, config_of, wrap

pytestmark = pytest.mark.sat

DEMO = Path(__file__).parents[2] / "jobs" / "demo"
NAMES = ("tiny-a", "tiny-2", "tiny-a-ds", "tiny-a-mp2", "tiny-a-lora")
PROBES = ("image", "image_long", "image_short", "text_long", "text_short")


def official_probes(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs of a golden fixture as our probes are laid out, and the tokens that SAT wrote behind them."""
    given, expected = load_file(folder / "inputs.safetensors"), load_file(folder / "expected.safetensors")
    probes, continued = {}, {}
    for item in {key.split(".")[0] for key in given}:
        probes[f"{item}.input_ids"] = given[f"{item}.input_ids"][0]
        probes[f"{item}.position_ids"] = given[f"{item}.position_ids"][0]
        probes[f"{item}.image_mask"] = given[f"{item}.image_embed_mask"][0]
        probes[f"{item}.expert_mask"] = given[f"{item}.vision_expert_mask"][0]
        probes[f"{item}.kept"] = torch.arange(given[f"{item}.input_ids"].shape[1])
        if f"{item}.pixel_values" in given:
            probes[f"{item}.pixel_values"] = given[f"{item}.pixel_values"]
        continued[f"{item}.greedy"] = expected.get(f"{item}.greedy", torch.zeros(16, dtype=torch.long))
    return probes, continued


def by_name(result: Verification) -> dict[str, Check]:
    return {check.name: check for check in result.checks}


def assert_faithful(result: Verification) -> None:
    assert result.ok, [check.line for check in result.checks]
    found = by_name(result)
    for name in ("parity", *(f"parity {probe}" for probe in PROBES)):
        measured = found[name].measured
        assert measured is not None
        assert measured["max_difference"] <= TOLERANCE
        assert (measured["top1"], measured["greedy"]) == (1.0, measured["num_greedy"])
    assert found["source"].status == "ok"


def ordinary(values: dict[str, Any], ranks: list[State]) -> None:
    """Weights scaled by their inputs, norms about 1, the exact rotary table: small changes stay small."""
    for state in ranks:
        for name, tensor in state.items():
            if name == ROTARY:
                state[name] = rotary_table(config_of(values)).to(tensor.dtype)
            elif tensor.dim() > 1:
                state[name] = (tensor.float() / math.sqrt(tensor[0].numel())).to(tensor.dtype)
            elif name.endswith(("layernorm.weight", "norm1.weight")):
                state[name] = (1 + 0.1 * tensor.float()).to(tensor.dtype)


def add_lora(layers: tuple[str, ...], values: dict[str, Any], ranks: list[State]) -> None:
    """Unmerged LoRA of rank 3 in the attention of these layers, in every model-parallel rank."""
    ends = ("attention.query_key_value.weight", "attention.dense.weight")
    for name in tensor_names(config_of(values)):
        if name.sat.startswith(layers) and name.sat.endswith(ends):
            for state in ranks:
                wrap(state, name, lora_rank=3, num_ranks=len(ranks))


@pytest.mark.parametrize("name", NAMES)
def test_our_cogvlm_for_sat_computes_what_the_official_one_did(
    golden: Path, tmp_path: Path, name: str
) -> None:
    probes, continued = official_probes(golden / name)
    save_file(probes, tmp_path / "probes")
    save_file(continued, tmp_path / "continued")
    ill, told = run_sat(
        find_sat_files(golden / name / "ckpt"),
        probes=tmp_path / "probes",
        continued=tmp_path / "continued",
        target_dtype=None,
        # This fixture stores a rounded table, and was run with it in fp32; the others with the exact one.
        rope_dtype="float32" if name == "tiny-a-ds" else None,
        out=tmp_path,
    )
    assert ill == ""
    assert (told["lora"] > 0) == (name == "tiny-a-lora")
    # Rounding 16-bit weights to 16 bits changes nothing; LoRA in fp32 is run as it is.
    assert told["variants"][0] == "expected"
    found, expected = (
        load_file(tmp_path / "expected.safetensors"),
        load_file(golden / name / "expected.safetensors"),
    )
    for item in {key.split(".")[0] for key in probes}:
        difference = (found[f"{item}.logits"] - expected[f"{item}.logits"][0]).abs().max()
        assert difference <= TOLERANCE, item
        if f"{item}.greedy" in expected:
            assert torch.equal(found[f"{item}.next"], expected[f"{item}.greedy"])


@pytest.mark.parametrize("name", NAMES)
def test_conversions_of_the_fixtures_are_faithful(golden: Path, tmp_path: Path, name: str) -> None:
    convert(golden / name / "ckpt", tmp_path / "out", version="chat_old")
    assert_faithful(verify(tmp_path / "out", against=golden / name / "ckpt"))


def test_the_demo_is_faithful_and_the_command_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(DEMO / "checkpoint", tmp_path / "out", tokenizer=DEMO / "tokenizer")
    with pytest.raises(SystemExit) as caught:
        main(["verify", str(tmp_path / "out"), "--against", str(DEMO / "checkpoint"), "--json"])
    *lines, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert (caught.value.code or 0, result["ok"]) == (0, True), lines
    (overall,) = (line for line in lines if line.startswith("ok       parity: "))
    assert "top-1 100.00%" in overall
    assert "greedy 80/80 tokens; tolerance 0.0001" in overall
    # It is a bf16 checkpoint: its stored table is rounded, which is told and not judged.
    (table,) = (check for check in result["checks"] if check["name"] == "inv_freq")
    assert table["detail"].startswith("recomputed; stored values are off by up to 3.")
    assert table["measured"]["max_difference"] > TOLERANCE


def test_kept_rotary_tables_are_compared_with_kept_ones(golden: Path, tmp_path: Path) -> None:
    """bf16 tables: positions, cosines and sines are rounded too, on both sides alike."""
    source = golden / "tiny-a-ds" / "ckpt"
    convert(source, tmp_path / "out", version="chat_old", inv_freq="keep")
    result = verify(tmp_path / "out", against=source)
    assert_faithful(result)
    assert by_name(result)["inv_freq"].detail.startswith("kept; ")


def test_a_changed_weight_of_the_visual_expert_is_seen_where_images_are(golden: Path, tmp_path: Path) -> None:
    convert(golden / "tiny-a" / "ckpt", tmp_path / "out", version="chat_old")
    (file,) = (tmp_path / "out").glob("*.safetensors")
    tensors = load_file(file)
    tensors["model.layers.1.mlp.vision_mlp.down_proj.weight"][0, 0] += 0.05
    save_file(tensors, file, metadata={"format": "pt"})
    result = verify(tmp_path / "out", against=golden / "tiny-a" / "ckpt")
    failed = {check.name for check in result.checks if check.status == "FAILED"}
    images = {f"parity {probe}" for probe in PROBES if probe.startswith("image")}
    assert failed == {"files", "fingerprint", "parity", *images}


def test_another_source_is_named_and_its_difference_measured(golden: Path, tmp_path: Path) -> None:
    convert(golden / "tiny-a" / "ckpt", tmp_path / "out", version="chat_old")
    source = Path(shutil.copytree(golden / "tiny-a" / "ckpt", tmp_path / "sat"))
    file = source / "1" / "mp_rank_00_model_states.pt"
    payload = torch.load(file, weights_only=True)
    payload["module"]["transformer.final_layernorm.weight"] *= 1.01
    torch.save(payload, file)
    found = by_name(verify(tmp_path / "out", against=source))
    assert "1/mp_rank_00_model_states.pt changed" in found["source"].detail
    assert {found[name].status for name in ("source", "parity", "parity text_short")} == {"FAILED"}


def test_rounding_is_told_apart_from_converting(golden: Path, tmp_path: Path) -> None:
    source = golden / "tiny-a" / "ckpt"
    convert(source, tmp_path / "out", version="chat_old", dtype="bfloat16")
    result = verify(tmp_path / "out", against=source)
    assert_faithful(result)
    rounding = by_name(result)["rounding"]
    assert rounding.measured is not None
    assert rounding.measured["max_difference"] > 100 * TOLERANCE


def test_sat_says_in_one_line_what_it_cannot_load(golden: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(golden / "tiny-a-lora" / "ckpt", tmp_path / "sat"))
    values = json.loads((source / "model_config.json").read_text())
    values["num_layers"] += 1
    (source / "model_config.json").write_text(json.dumps(values))
    probes, continued = official_probes(golden / "tiny-a-lora")
    save_file(probes, tmp_path / "probes")
    save_file(continued, tmp_path / "continued")
    ill, _ = run_sat(
        find_sat_files(source),
        probes=tmp_path / "probes",
        continued=tmp_path / "continued",
        target_dtype=None,
        rope_dtype=None,
        out=tmp_path,
    )
    assert "mp_rank_00_model_states.pt is without mixins.mlp.gate_proj.3.weight (160, 64)" in ill


LORA = ("transformer.layers.1.", "mixins.eva.vit_model.transformer.layers.0.")


@pytest.mark.parametrize(
    ("values", "num_ranks", "stored", "lora", "converted"),
    [
        pytest.param(TINY_2, 2, torch.bfloat16, (), None, id="v2-bf16-2ranks"),
        pytest.param(TINY, 4, torch.float16, (), "float32", id="v1-fp16-4ranks-widened"),
        pytest.param(TINY_2, 1, torch.bfloat16, LORA, None, id="v2-bf16-lora"),
        pytest.param(TINY_2, 2, torch.float32, LORA, "bfloat16", id="v2-2ranks-lora-rounded"),
        pytest.param(TINY, 2, torch.bfloat16, LORA, "float32", id="v1-bf16-2ranks-lora-widened"),
    ],
)
def test_other_geometries_are_faithful(
    tmp_path: Path,
    values: dict[str, Any],
    num_ranks: int,
    stored: torch.dtype,
    lora: tuple[str, ...],
    converted: str | None,
) -> None:
    """Vocabularies above 1,000 (which ranks share), grouped heads, LoRA in some layers, 16-bit files."""

    def edit(ranks: list[State]) -> None:
        add_lora(lora, values, ranks)
        ordinary(values, ranks)

    written = to_sat(config_of(values))
    source = build(tmp_path / "sat", written, num_ranks=num_ranks, dtype=stored, edit=edit)
    convert(source, tmp_path / "out", version="chat_old", dtype=converted)
    result = verify(tmp_path / "out", against=source)
    assert_faithful(result)
    # Merged into 16-bit weights, or narrowed: then the original in fp32 is something else.
    rounds = (bool(lora) and converted is None) or converted == "bfloat16"
    assert ("rounding" in by_name(result)) == rounds
    if num_ranks > 1:
        assert f"{num_ranks} ranks" in by_name(result)["sat"].detail
    if lora:
        assert "LoRA on 4 weights" in by_name(result)["sat"].detail
