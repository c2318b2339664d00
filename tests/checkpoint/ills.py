"""The known ills of model directories: each function makes a healthy directory ill, in place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from cogbatch.checkpoint.layout import CODE_FILES
from cogbatch.checkpoint.manifest import MANIFEST
from tests.checkpoint.official import read_tensors, write_json, write_shards

INDEX = "model.safetensors.index.json"


def change_config(folder: Path, drop: tuple[str, ...] = (), **values: Any) -> None:
    file = folder / "config.json"
    kept = {k: v for k, v in json.loads(file.read_text()).items() if k not in drop}
    write_json(file, kept | values)


def take_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors, their files deleted."""
    tensors = read_tensors(folder)
    for file in (*folder.glob("*.safetensors"), folder / INDEX):
        file.unlink(missing_ok=True)
    return tensors


def save_bin(tensors: dict[str, torch.Tensor], file: Path) -> None:
    torch.save({name: t for name, t in tensors.items() if "inv_freq" not in name}, file)


def make_older(folder: Path, pattern: str) -> None:
    for file in folder.glob(pattern):
        os.utime(file, (1_600_000_000, 1_600_000_000))


def other_values(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor + 1 for name, tensor in tensors.items()}


# Each builds its ill in a healthy directory.


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def empty_config(folder: Path) -> None:
    (folder / "config.json").write_text("")


def only_heads(folder: Path) -> None:
    """What no tensor tells, and what would be an ill of its own."""
    values = json.loads((folder / "config.json").read_text())
    kept = {name: values[name] for name in ("num_attention_heads", "rms_norm_eps", "auto_map")}
    kept["vision_config"] = {"num_heads": values["vision_config"]["num_heads"]}
    write_json(folder / "config.json", kept)


def config_of_llama(folder: Path) -> None:
    change_config(folder, architectures=["LlamaForCausalLM"], model_type="llama", num_hidden_layers=40)


def wrong_vocabulary(folder: Path) -> None:
    change_config(folder, vocab_size=32000)


def nothing_explicit(folder: Path) -> None:
    names = ("num_multi_query_heads", "rope_theta", "vision_expert_qkv_bias", "num_vision_expert_layers")
    change_config(folder, names)


def class_epsilon(folder: Path) -> None:
    change_config(folder, rms_norm_eps=1e-6)


def no_epsilon(folder: Path) -> None:
    change_config(folder, ("rms_norm_eps",))


def no_auto_map(folder: Path) -> None:
    change_config(folder, ("auto_map",))


def auto_map_of_the_hub(folder: Path) -> None:
    place = "THUDM/cogvlm-chat-hf--modeling_cogvlm.CogVLMForCausalLM"
    change_config(folder, auto_map={"AutoModelForCausalLM": place})


def no_code(folder: Path) -> None:
    for name in CODE_FILES:
        (folder / name).unlink()


def changed_code(folder: Path) -> None:
    (folder / "visual.py").write_text("raise SystemExit('an older one')\n")


def new_bin_beside_old_shards(folder: Path) -> None:
    tensors = take_weights(folder)
    write_shards(folder, other_values(tensors), num_shards=2)
    make_older(folder, "*.safetensors")
    save_bin(tensors, folder / "pytorch_model.bin")


def bin_beside_an_index_alone(folder: Path) -> None:
    save_bin(read_tensors(folder), folder / "pytorch_model.bin")
    for file in folder.glob("*.safetensors"):
        file.unlink()


def bin_alone(folder: Path) -> None:
    save_bin(take_weights(folder), folder / "pytorch_model.bin")


def bins_with_index(folder: Path) -> None:
    tensors = take_weights(folder)
    halves = [list(tensors)[0::2], list(tensors)[1::2]]
    places: dict[str, str] = {}
    for number, names in enumerate(halves, start=1):
        file = f"pytorch_model-{number:05d}-of-00002.bin"
        torch.save({name: tensors[name] for name in names}, folder / file)
        places |= dict.fromkeys(names, file)
    write_json(folder / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": places})


def old_bin_beside_new_shards(folder: Path) -> None:
    save_bin(other_values(read_tensors(folder)), folder / "pytorch_model.bin")
    make_older(folder, "*.bin")


def old_single_file(folder: Path) -> None:
    save_file(other_values(read_tensors(folder)), folder / "model.safetensors", metadata={"format": "pt"})
    make_older(folder, "model.safetensors")


def index_of_other_files(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "model-00001-of-00008.safetensors")
    write_json(folder / INDEX, index)


def index_without_tensors(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] = {n: file for n, file in index["weight_map"].items() if "lm_head" not in n}
    index["weight_map"]["model.gone"] = next(iter(index["weight_map"].values()))
    write_json(folder / INDEX, index)


def index_without_metadata(folder: Path) -> None:
    write_json(folder / INDEX, {"weight_map": json.loads((folder / INDEX).read_text())["weight_map"]})


def no_index(folder: Path) -> None:
    (folder / INDEX).unlink()


def no_rotary_tables(folder: Path) -> None:
    tensors = {name: t for name, t in take_weights(folder).items() if "inv_freq" not in name}
    write_shards(folder, tensors, num_shards=2)
    (folder / MANIFEST).unlink(missing_ok=True)  # whoever saves a model again writes none


def no_rotary_table_in_one_file(folder: Path) -> None:
    tensors = {name: t for name, t in take_weights(folder).items() if "layers.1.self_attn.rotary" not in name}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def broken_rotary_tables(folder: Path) -> None:
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        for name in tensors:
            if "inv_freq" in name:
                tensors[name][1] = float("nan")
        save_file(tensors, file, metadata={"format": "pt"})


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


# What no tool can mend.


def rewrite(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = take_weights(folder)
    edit(tensors)
    write_shards(folder, tensors, num_shards=2)
    (folder / MANIFEST).unlink()


def lose_a_tensor(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.pop("model.layers.1.self_attn.language_expert_dense.weight"))


def add_an_adapter(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.update({"base.lora_A": torch.zeros(2)}))


def mix_models(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.update({"model.layers.2.input_layernorm.weight": torch.ones(3)}))


def lose_a_file(folder: Path) -> None:
    rewrite(folder, dict)
    (folder / "model-00002-of-00002.safetensors").unlink()


def truncate_a_file(folder: Path) -> None:
    rewrite(folder, dict)
    os.truncate(folder / "model-00001-of-00002.safetensors", 5000)


def flip_a_byte(folder: Path) -> None:
    (file,) = folder.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def lose_weights(folder: Path) -> None:
    take_weights(folder)
    (folder / MANIFEST).unlink()


def lose_config_and_manifest(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / MANIFEST).unlink()


def damage_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text("{")
