"""Back to SAT: the same bytes of meaning in both directions."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from official import read_tensors, write_json, write_shards
from safetensors.torch import load_file

from cogbatch.checkpoint.convert import convert
from cogbatch.checkpoint.export import export_sat, to_sat_state
from cogbatch.errors import CheckpointError
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM

Converted = Callable[[str], Path]
RANK = "mp_rank_00_model_states.pt"
QKV = "transformer.layers.1.attention.query_key_value.weight"


def tiny_model(**changes: Any) -> CogVLMForCausalLM:
    """4 heads of 8, 2 layers; vision_config in changes is merged."""
    torch.manual_seed(0)
    vision = {
        "hidden_size": 24,
        "image_size": 28,
        "intermediate_size": 40,
        "num_heads": 2,
        "num_hidden_layers": 1,
        "num_positions": 5,
    }
    values: dict[str, Any] = {
        "vocab_size": 80,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "template_version": "base",
    }
    vision |= changes.pop("vision_config", {})
    return CogVLMForCausalLM(CogVLMConfig(**{**values, **changes, "vision_config": vision}))


def tiny_v2(**changes: Any) -> CogVLMForCausalLM:
    """4 heads, 2 key heads."""
    two = {"num_multi_query_heads": 2, "vision_expert_qkv_bias": True, "rope_theta": 5e5}
    return tiny_model(**two, **changes, vision_config={"downsample": True})


def ranks_of(folder: Path) -> list[dict[str, torch.Tensor]]:
    files = sorted((folder / "1").iterdir())
    return [torch.load(file, weights_only=True)["module"] for file in files]


@pytest.fixture
def hf_copy(converted: Converted, tmp_path: Path) -> Callable[..., Path]:
    """tiny-a as a model directory of the test's own, its configuration or tensors changed on the way."""

    def make(tensors: dict[str, torch.Tensor] | None = None, **values: Any) -> Path:
        folder = tmp_path / "hf"
        folder.mkdir()
        config = json.loads((converted("tiny-a") / "config.json").read_text())
        write_json(folder / "config.json", config | values)
        write_shards(folder, read_tensors(converted("tiny-a")) | (tensors or {}), num_shards=2)
        return folder

    return make


@pytest.mark.parametrize("name", ["tiny-a", "tiny-2"])
def test_export_of_a_conversion_is_the_source(
    converted: Converted, golden: Path, tmp_path: Path, name: str
) -> None:
    export_sat(converted(name), tmp_path / "sat")
    source = torch.load(golden / name / "ckpt" / "1" / RANK)["module"]
    written = torch.load(tmp_path / "sat" / "1" / RANK, weights_only=True)
    assert list(written) == ["module"]
    assert list(written["module"]) == list(source)
    assert all(torch.equal(written["module"][key], source[key]) for key in source)
    assert (tmp_path / "sat" / "latest").read_bytes() == b"1"
    values = json.loads((tmp_path / "sat" / "model_config.json").read_text())
    assert values.pop("text_processor_version") == "chat_old"
    assert values == json.loads((golden / name / "ckpt" / "model_config.json").read_text())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_conversion_of_an_export_is_the_model(tmp_path: Path, dtype: torch.dtype) -> None:
    model = tiny_model().to(dtype)
    export_sat(model.state_dict(), tmp_path / "sat", config=model.config, iteration=7)
    report = convert(tmp_path / "sat", tmp_path / "hf")
    assert report.template_version == "base"
    written = load_file(tmp_path / "hf" / "model-00001-of-00001.safetensors")
    state = model.state_dict()
    assert written.keys() - state.keys() == {
        f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in (0, 1)
    }
    assert all(torch.equal(written[name], state[name]) for name in state)
    module = torch.load(tmp_path / "sat" / "7" / RANK, weights_only=True)["module"]
    assert {tensor.dtype for tensor in module.values()} == {dtype}


def test_incomplete_and_foreign_states_are_named() -> None:
    model = tiny_model()
    state = model.state_dict()
    with pytest.raises(CheckpointError, match=r"no name for: lora\.weight"):
        to_sat_state({**state, "lora.weight": torch.zeros(1)}, model.config)
    with pytest.raises(CheckpointError, match=r"lm_head.weight' has shape \[3\]"):
        to_sat_state({**state, "lm_head.weight": torch.zeros(3)}, model.config)
    del state["model.norm.weight"]
    with pytest.raises(CheckpointError, match=r"lacks model\.norm\.weight"):
        to_sat_state(state, model.config)


def test_ranks_are_those_that_sat_wrote(converted: Converted, golden: Path, tmp_path: Path) -> None:
    export_sat(converted("tiny-a"), tmp_path / "sat", model_parallel_size=2)
    source = golden / "tiny-a-mp2" / "ckpt"
    pairs = zip(ranks_of(tmp_path / "sat"), ranks_of(source), strict=True)
    for written, stored in pairs:
        assert list(written) == list(stored)
        assert all(torch.equal(written[name], stored[name]) for name in stored)
    values = json.loads((tmp_path / "sat" / "model_config.json").read_text())
    assert values.pop("text_processor_version") == "chat_old"
    assert values == json.loads((source / "model_config.json").read_text())


def test_every_rank_holds_whole_heads_and_its_share_of_the_vocabulary(tmp_path: Path) -> None:
    """v2, by hand: 4 heads of 8 rows, then 2 key heads and 2 value heads; 1,000 entries."""
    model = tiny_v2(vocab_size=1000)
    state = model.state_dict()
    export_sat(state, tmp_path / "sat", config=model.config, model_parallel_size=2)
    first, second = ranks_of(tmp_path / "sat")
    whole = state["model.layers.1.self_attn.language_expert_query_key_value.weight"]
    assert torch.equal(first[QKV], torch.cat([whole[0:16], whole[32:40], whole[48:56]]))
    assert torch.equal(second[QKV], torch.cat([whole[16:32], whole[40:48], whole[56:64]]))
    embedding = "transformer.word_embeddings.weight"
    assert torch.equal(second[embedding], state["model.embed_tokens.weight"][500:])
    dense = "mixins.rotary.vision_dense_list.1.weight"
    assert torch.equal(second[dense], state["model.layers.1.self_attn.vision_expert_dense.weight"][:, 16:])
    assert torch.equal(first["mixins.eva.conv.weight"], second["mixins.eva.conv.weight"])


def test_small_vocabularies_stay_whole_but_their_heads_are_shared(tmp_path: Path) -> None:
    model = tiny_model(vocab_size=998)
    export_sat(model.state_dict(), tmp_path / "sat", config=model.config, model_parallel_size=2)
    for rank in ranks_of(tmp_path / "sat"):
        assert rank["transformer.word_embeddings.weight"].shape == (998, 32)
        assert rank["mixins.lm.lm_head.weight"].shape == (499, 32)


@pytest.mark.parametrize(
    ("make", "changes", "ranks", "culprit"),
    [
        (tiny_model, {}, 3, r"num_attention_heads 4, .*; possible here: 1, 2$"),
        (tiny_model, {}, 4, r"divide vision_config\.num_heads 2; possible here: 1, 2$"),
        (tiny_v2, {}, 4, r"divide num_multi_query_heads 2, vision_config\.num_heads 2; "),
        (tiny_model, {"vocab_size": 1001}, 2, r"divide vocab_size 1001; possible here: 1$"),
        (tiny_model, {"vocab_size": 81}, 2, r"divide vocab_size 81; "),
        (tiny_model, {"intermediate_size": 47}, 2, r"divide intermediate_size 47; "),
        (
            tiny_model,
            {"vision_config": {"intermediate_size": 41}},
            2,
            r"vision_config\.intermediate_size 41; ",
        ),
        (tiny_model, {}, 0, "model_parallel_size is 0, expected 1 or more"),
    ],
)
def test_ranks_that_cannot_share_the_model_are_refused(
    tmp_path: Path, make: Callable[..., CogVLMForCausalLM], changes: dict[str, Any], ranks: int, culprit: str
) -> None:
    model = make(**changes)
    with pytest.raises(ValueError, match=culprit):
        export_sat(model.state_dict(), tmp_path / "sat", config=model.config, model_parallel_size=ranks)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_theta": 777.0}, r"rope_theta is 777\.0, but SAT's CogVLM v1 fixes 10000\.0"),
        ({"num_vision_expert_layers": 1}, "num_vision_expert_layers is 1, but SAT's CogVLM v1 fixes 3"),
        ({"vision_expert_qkv_bias": True}, "vision_expert_qkv_bias is True"),
        ({"num_multi_query_heads": 2}, "num_multi_query_heads is 2, but SAT's CogVLM v1 fixes 4"),
        ({"hidden_act": "relu"}, "hidden_act is relu"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is True"),
    ],
)
def test_values_that_sat_hard_codes_must_be_its_own(
    hf_copy: Callable[..., Path], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = hf_copy(**changes)
    with pytest.raises(CheckpointError, match=message):
        export_sat(folder, tmp_path / "sat")
    assert not (tmp_path / "sat").exists()


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.full((512, 64), torch.nan), r"'lm_head\.weight' holds NaN or infinity"),
        (torch.zeros(512, 64, dtype=torch.int8), r"'lm_head\.weight' has dtype torch\.int8"),
        (torch.zeros(512, 63), r"'lm_head\.weight' has shape \[512, 63\]"),
    ],
)
def test_tensors_that_no_model_has_leave_nothing_behind(
    hf_copy: Callable[..., Path], tmp_path: Path, tensor: torch.Tensor, message: str, ranks: int
) -> None:
    folder = hf_copy({"lm_head.weight": tensor})
    with pytest.raises(CheckpointError, match=f"^{folder}: {message}"):
        export_sat(folder, tmp_path / "sat", model_parallel_size=ranks)
    assert [entry.name for entry in tmp_path.iterdir()] == ["hf"]


def test_a_truncated_file_is_named(hf_copy: Callable[..., Path], tmp_path: Path) -> None:
    file = hf_copy() / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"^{file}: not readable as safetensors"):
        export_sat(tmp_path / "hf", tmp_path / "sat")


def test_an_export_that_ends_early_leaves_nothing_behind(converted: Converted, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if 2 * done > total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_sat(converted("tiny-a"), tmp_path / "sat", model_parallel_size=2, on_progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_progress_counts_every_byte_of_every_rank(converted: Converted, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    export_sat(
        converted("tiny-a"),
        tmp_path / "sat",
        model_parallel_size=2,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    written = sum(tensor.nbytes for rank in ranks_of(tmp_path / "sat") for tensor in rank.values())
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (written, written)
    assert {total for _, total in seen} == {written}


def test_a_kept_table_finer_than_the_weights_is_not_rounded() -> None:
    model = tiny_model().to(torch.bfloat16)
    table = torch.tensor([1.0, 0.3, 0.1, 0.03])
    model.config.rope_inv_freq = table.tolist()
    back = to_sat_state(model.state_dict(), model.config)["mixins.rotary.rotary_emb.inv_freq"]
    assert back.dtype == torch.float32
    assert torch.equal(back, table)
    model.config.rope_inv_freq = table.bfloat16().tolist()
    back = to_sat_state(model.state_dict(), model.config)["mixins.rotary.rotary_emb.inv_freq"]
    assert back.dtype == torch.bfloat16
    assert torch.equal(back, table.bfloat16())


def test_output_and_model_must_lie_apart(hf_copy: Callable[..., Path]) -> None:
    folder = hf_copy()
    for target in (folder, folder / "sat", folder.parent):
        with pytest.raises(CheckpointError, match="must not contain each other"):
            export_sat(folder, target)


def test_wrong_arguments_are_value_errors(converted: Converted, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="iteration is 0"):
        export_sat(converted("tiny-a"), tmp_path / "sat", iteration=0)
    with pytest.raises(ValueError, match="config must be given with a state dict"):
        export_sat({}, tmp_path / "sat")


def test_existing_directories_are_kept(converted: Converted, tmp_path: Path) -> None:
    export_sat(converted("tiny-a"), tmp_path / "sat")
    with pytest.raises(CheckpointError, match="not empty"):
        export_sat(converted("tiny-a"), tmp_path / "sat")
    export_sat(converted("tiny-a"), tmp_path / "sat", overwrite=True)


def test_a_directory_that_differs_from_its_manifest_is_refused(converted: Converted, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(converted("tiny-a"), tmp_path / "hf"))
    file = folder / "model-00001-of-00001.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 64
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"^{folder}: {file.name} differ from the manifest; convert"):
        export_sat(folder, tmp_path / "sat")
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != "cache"] == ["hf"]


def test_a_manifest_without_the_weights_vouches_for_nothing(converted: Converted, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(converted("tiny-a"), tmp_path / "hf"))
    file = folder / "cogbatch_manifest.json"
    write_json(file, json.loads(file.read_text()) | {"files": {}})
    with pytest.raises(CheckpointError, match=r"config\.json, model-00001-of-00001\.safetensors differ from"):
        export_sat(folder, tmp_path / "sat")


@pytest.mark.parametrize(
    "changes", [{"rms_norm_eps": "x"}, {"eos_token_id": -1}, {"num_attention_heads": "4"}]
)
def test_a_configuration_of_wrong_types_is_not_exported(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = tiny_model()
    for name, value in changes.items():
        setattr(model.config, name, value)
    with pytest.raises(CheckpointError, match=rf"^config\.json: {next(iter(changes))} is "):
        export_sat(model.state_dict(), tmp_path / "sat", config=model.config)
