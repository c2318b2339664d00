"""Reading SAT directories: what is refused is refused by name, and no code in a file is run."""

import json
import os
import pickle
import shutil
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cogbatch.checkpoint.sat import find_sat_files, load_sat_tensors
from cogbatch.checkpoint.sat_config import from_sat, template_version, to_sat
from cogbatch.errors import CheckpointError
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.templates import TEMPLATE_NAMES

SatCopy = Callable[..., Path]
RANK = "mp_rank_00_model_states.pt"
WHERE = Path("ckpt/model_config.json")


def golden_values(golden: Path, name: str = "tiny-a") -> dict[str, Any]:
    values: dict[str, Any] = json.loads((golden / name / "ckpt" / "model_config.json").read_text())
    return values


def config_of(values: dict[str, Any], *, conv: bool = False) -> CogVLMConfig:
    return from_sat(values, keys={"mixins.eva.conv.weight"} if conv else set(), where=WHERE)


def read(folder: Path, **options: Any) -> dict[str, torch.Tensor]:
    return load_sat_tensors(find_sat_files(folder, **options).weights[0])


def test_training_file_gives_the_same_tensors_as_an_unrestricted_load(golden: Path) -> None:
    folder = golden / "tiny-a-ds" / "ckpt"
    unrestricted = torch.load(folder / "800" / RANK, weights_only=False)["module"]
    restricted = read(folder)
    assert list(restricted) == list(unrestricted)
    assert all(torch.equal(restricted[key], unrestricted[key]) for key in unrestricted)


def test_iteration_defaults_to_latest_and_can_be_chosen(sat_copy: SatCopy) -> None:
    folder = sat_copy()
    (folder / "1").rename(folder / "release")
    (folder / "latest").write_text("release\n")
    assert find_sat_files(folder).iteration == "release"
    (folder / "release").rename(folder / "20")
    assert find_sat_files(folder, iteration=20).weights[0].parent.name == "20"
    with pytest.raises(CheckpointError, match=r"no folder for iteration 'release'; found 20"):
        find_sat_files(folder)
    (folder / "latest").unlink()
    assert find_sat_files(folder).iteration == "20"


def test_without_latest_the_iteration_must_be_chosen_among_several(sat_copy: SatCopy) -> None:
    folder = sat_copy()
    (folder / "latest").unlink()
    for name in ("800", "1200", "800-ema"):
        shutil.copytree(folder / "1", folder / name)
    with pytest.raises(
        CheckpointError, match=r"no file 'latest'; pass --iteration \(found 1, 800, 1200, 800-ema"
    ):
        find_sat_files(folder)
    assert find_sat_files(folder, iteration="800-ema").weights[0].parent.name == "800-ema"


@pytest.mark.parametrize("iteration", ["../sat-tiny-a/1", "..", "", "1/"])
def test_an_iteration_is_a_folders_name(golden: Path, iteration: str) -> None:
    with pytest.raises(ValueError, match="expected a number or a folder's name"):
        find_sat_files(golden / "tiny-a" / "ckpt", iteration=iteration)


def test_latest_never_leads_out_of_the_directory(sat_copy: SatCopy) -> None:
    folder = sat_copy()
    (folder / "latest").write_text("../sat-tiny-a/1")
    with pytest.raises(CheckpointError, match="is not an iteration"):
        find_sat_files(folder)


class Touch:
    """Unpickling this object would create a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_file_is_named_and_not_run(sat_copy: SatCopy, tmp_path: Path, legacy: bool) -> None:
    folder, proof = sat_copy(), tmp_path / "it-ran"
    payload = {"module": OrderedDict(a=torch.zeros(1)), "extra": Touch(proof)}
    torch.save(payload, folder / "1" / RANK, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"posix\.mkdir" if not legacy else RANK):
        read(folder)
    assert not proof.exists()


def test_training_framework_objects_are_ignored(sat_copy: SatCopy) -> None:
    # A class that only the training machine has; the pickle names it, and nothing of it is imported.
    folder = sat_copy()
    file = folder / "1" / RANK
    payload = torch.load(file, weights_only=True)
    module = types.ModuleType("deepspeed")
    module.LossScaler = type("LossScaler", (), {"__module__": "deepspeed"})  # type: ignore[attr-defined]
    payload["loss_scaler"] = module.LossScaler()
    sys.modules["deepspeed"] = module
    try:
        torch.save(payload, file)
    finally:
        del sys.modules["deepspeed"]
    assert len(read(folder)) == 76


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"PK\x03\x04", lambda _: b"hello world"],
)
def test_damaged_weights_are_one_line(sat_copy: SatCopy, damage: Callable[[bytes], bytes]) -> None:
    folder = sat_copy()
    file = folder / "1" / RANK
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CheckpointError, match=r"truncated\? copy it again") as caught:
        read(folder)
    assert "\n" not in str(caught.value)


def test_a_plain_pickle_without_module_is_refused(sat_copy: SatCopy) -> None:
    folder = sat_copy()
    torch.save({"state_dict": {}}, folder / "1" / RANK)
    with pytest.raises(CheckpointError, match=r"expected a dict with 'module'.*found state_dict"):
        read(folder)
    (folder / "1" / RANK).write_bytes(pickle.dumps({"module": {}}))
    with pytest.raises(CheckpointError):
        read(folder)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("transformer.layers.0.attention.dense.matrix_A.0", "unmerged LoRA"),
        ("mixins.ptuning.prefix.0", "P-tuning"),
        ("transformer.layers.0.cross_attention.query.weight", "CogAgent"),
        ("mixins.eva.pos_embed", "CogAgent"),
        ("transformer.layers.0.attention.dense.weight.absmax", "QLoRA"),
    ],
)
def test_other_kinds_of_weights_are_named(sat_copy: SatCopy, key: str, kind: str) -> None:
    folder = sat_copy(edit=lambda module: module.update({key: torch.zeros(2)}))
    with pytest.raises(CheckpointError, match=f"{kind}.*{key}"):
        read(folder)


def test_quantised_tensors_are_refused(sat_copy: SatCopy) -> None:
    def quantise(module: dict[str, Any]) -> None:
        module["transformer.final_layernorm.weight"] = torch.zeros(64, dtype=torch.uint8)

    with pytest.raises(CheckpointError, match=r"'transformer.final_layernorm.weight' has dtype torch.uint8"):
        read(sat_copy(edit=quantise))


def test_sparse_tensors_are_refused(sat_copy: SatCopy) -> None:
    def thin(module: dict[str, Any]) -> None:
        module["mixins.eva.boi"] = module["mixins.eva.boi"].to_sparse()

    with pytest.raises(CheckpointError, match=r"'mixins\.eva\.boi' is a sparse tensor"):
        read(sat_copy(edit=thin))


def test_nobody_is_told_to_load_a_file_without_its_guard(sat_copy: SatCopy) -> None:
    folder = sat_copy()
    (folder / "1" / RANK).write_bytes(pickle.dumps({"module": print}))
    with pytest.raises(CheckpointError, match="not only weights, or damaged") as caught:
        read(folder)
    assert "weights_only" not in str(caught.value)


def test_directories_that_are_not_whole_say_what_is_missing(sat_copy: SatCopy) -> None:
    folder = sat_copy()
    with pytest.raises(CheckpointError, match="this is an iteration folder, give its parent"):
        find_sat_files(folder / "1")
    (folder / "1" / RANK).rename(folder / "1" / "mp_rank_01_model_states.pt")
    with pytest.raises(CheckpointError, match=f"no {RANK}, expected 1 .* found mp_rank_01_model_states.pt"):
        find_sat_files(folder)
    (folder / "1" / RANK).touch()
    with pytest.raises(CheckpointError, match=r"2 rank files, but model_config.json says .*_size 1"):
        find_sat_files(folder)
    (folder / "1" / "z3_rank_00_model_states.pt").touch()
    with pytest.raises(CheckpointError, match="ZeRO-3"):
        find_sat_files(folder)
    (folder / "model_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not readable as JSON"):
        find_sat_files(folder)
    (folder / "model_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no model_config\.json"):
        find_sat_files(folder)


def test_missing_ranks_are_named_and_found_in_a_sibling_run(sat_copy: SatCopy) -> None:
    folder = sat_copy("tiny-a-mp2", config={"model_parallel_size": 4})
    with pytest.raises(
        CheckpointError, match=r"no mp_rank_02_model_states.pt, mp_rank_03.*expected 4.*found mp"
    ):
        find_sat_files(folder)
    sibling = folder.parent / "run-12-31-00-01" / "1"
    sibling.mkdir(parents=True)
    (sibling / "mp_rank_03_model_states.pt").touch()
    with pytest.raises(
        CheckpointError, match=r"there is .*/run-12-31-00-01/1/mp_rank_03_model_states.pt: if"
    ):
        find_sat_files(folder)
    (folder / "model_config.json").rename(sibling.parent / "model_config.json")
    with pytest.raises(CheckpointError, match=r"there is .*/run-12-31-00-01/model_config.json: if"):
        find_sat_files(folder)


def test_ranks_are_as_many_as_there_are_files_where_the_configuration_does_not_say(sat_copy: SatCopy) -> None:
    folder = sat_copy("tiny-a-mp2", config={"model_parallel_size": None})
    assert [file.name[8:10] for file in find_sat_files(folder).weights] == ["00", "01"]


@pytest.mark.parametrize("size", [0, "2", True, 1.5])
def test_a_model_parallel_size_that_is_none_is_named(sat_copy: SatCopy, size: object) -> None:
    with pytest.raises(CheckpointError, match=r"model_parallel_size is .*, expected a whole number"):
        find_sat_files(sat_copy(config={"model_parallel_size": size}))


@pytest.mark.parametrize(
    ("model_class", "message"),
    [
        ("CogAgentModel", "CogAgent"),
        ("FineTuneTrainCogAgentModel", "CogAgent"),
        ("CogVLMVideoModel", "Video"),
        ("GLMModel", "unknown class"),
        ("CogVLM2Model", "is CogVLM v2, but the weights lack 'mixins.eva.conv.weight'"),
    ],
)
def test_unsupported_classes_are_named(golden: Path, model_class: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        config_of(golden_values(golden) | {"model_class": model_class})


def test_v2_weights_under_a_v1_class_are_refused(golden: Path) -> None:
    with pytest.raises(CheckpointError, match="is CogVLM v1, but the weights have"):
        config_of(golden_values(golden), conv=True)


def test_missing_fields_are_all_named(golden: Path) -> None:
    values = golden_values(golden)
    del values["hidden_size"], values["eva_args"]["image_size"]
    with pytest.raises(CheckpointError, match=r"lacks hidden_size, eva_args\.image_size"):
        config_of(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eva_args": None}, "eva_args is None, expected an object"),
        ({"eva_args": "x"}, "eva_args is 'x', expected an object"),
        ({"num_layers": "2"}, "num_layers is '2', expected a whole number of at least 1"),
        ({"num_layers": -2}, "num_layers is -2, expected"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0, expected a whole number of at least 1"),
        ({"vocab_size": True}, "vocab_size is True, expected"),
        ({"hidden_size": None}, "hidden_size is None, expected"),
        ({"hidden_size": 66}, "hidden_size is 66, expected a multiple of num_attention_heads, 4"),
        ({"num_multi_query_heads": 3}, "num_multi_query_heads is 3, expected a divisor"),
        ({"inner_hidden_size": 1.5}, "inner_hidden_size is 1.5, expected a whole number of at least 0"),
        ({"layernorm_epsilon": "small"}, "layernorm_epsilon is 'small', expected a number above 0"),
        ({"eos_token_id": [2, "x"]}, "eos_token_id is .2, 'x'., expected a token id"),
    ],
)
def test_fields_of_another_type_are_named(golden: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        config_of(golden_values(golden) | change)


def test_wrong_fields_are_all_named_at_once(golden: Path) -> None:
    values = golden_values(golden) | {"num_layers": "2", "vocab_size": 0}
    values["eva_args"]["num_attention_heads"] = 0
    message = "num_layers is '2'.*; vocab_size is 0.*; eva_args.num_attention_heads is 0"
    with pytest.raises(CheckpointError, match=message):
        config_of(values)


def test_null_and_zero_mean_sats_defaults_where_there_are_some(golden: Path) -> None:
    values = golden_values(golden) | {"num_multi_query_heads": 0, "layernorm_epsilon": None}
    values["eva_args"]["patch_size"] = None
    config = config_of(values)
    assert (config.num_multi_query_heads, config.rms_norm_eps, config.vision_config.patch_size) == (
        4,
        1e-5,
        14,
    )


def test_contradictions_are_named(golden: Path) -> None:
    with pytest.raises(CheckpointError, match="image_length is 17"):
        config_of(golden_values(golden) | {"image_length": 17})
    with pytest.raises(CheckpointError, match="layernorm_order is 'sandwich'"):
        config_of(golden_values(golden) | {"layernorm_order": "sandwich"})
    values = golden_values(golden)
    values["eva_args"]["image_size"] = [56, 70]
    with pytest.raises(CheckpointError, match="expected a square"):
        config_of(values)


def test_absent_optional_fields_mean_sats_defaults(golden: Path) -> None:
    values = golden_values(golden)
    for name in ("inner_hidden_size", "bos_token_id", "eos_token_id", "pad_token_id", "max_sequence_length"):
        del values[name]
    del values["eva_args"]["layernorm_epsilon"]
    config = config_of(values)
    assert (config.intermediate_size, config.rms_norm_eps) == (256, 1e-5)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 0)
    assert config.vision_config.layer_norm_eps == 1e-5


def test_cogvlm2_defaults_are_llama_3s(golden: Path) -> None:
    values = golden_values(golden, "tiny-2") | {"vocab_size": 128256}
    del values["bos_token_id"], values["eos_token_id"], values["pad_token_id"]
    config = config_of(values, conv=True)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (
        128000,
        [128001, 128009],
        128002,
    )
    assert (config.rope_theta, config.num_multi_query_heads, config.vision_expert_qkv_bias) == (5e5, 2, True)


def test_v1_has_experts_in_the_first_32_layers_and_v2_in_all(golden: Path) -> None:
    assert config_of(golden_values(golden) | {"num_layers": 40}).num_vision_expert_layers == 32
    two = golden_values(golden, "tiny-2") | {"num_layers": 40}
    assert config_of(two, conv=True).num_vision_expert_layers == 40


@pytest.mark.parametrize("name", ["tiny-a", "tiny-2"])
def test_configuration_written_back_is_sats_own(golden: Path, name: str) -> None:
    values = golden_values(golden, name)
    config = config_of(values, conv=name == "tiny-2")
    written = to_sat(config)
    assert written.pop("text_processor_version") == "chat_old"
    assert json.dumps(written) == json.dumps(values)


def test_every_template_name_is_known_and_others_are_refused() -> None:
    assert {sat: template_version(sat, {}, where=WHERE) for sat in TEMPLATE_NAMES} == TEMPLATE_NAMES
    assert template_version(None, {"text_processor_version": "chat"}, where=WHERE) == "inst"
    with pytest.raises(CheckpointError, match="no text_processor_version; pass --version"):
        template_version(None, {}, where=WHERE)
    with pytest.raises(CheckpointError, match="'poem' is unknown"):
        template_version(None, {"text_processor_version": "poem"}, where=WHERE)
    with pytest.raises(CheckpointError, match=r"\['chat'\] is unknown"):
        template_version(None, {"text_processor_version": ["chat"]}, where=WHERE)
    with pytest.raises(ValueError, match="expected one of base, vqa, chat_old, chat"):
        template_version("inst", {}, where=WHERE)
