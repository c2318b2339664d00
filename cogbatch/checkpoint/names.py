"""SAT tensor names <-> Hugging Face tensor names, as one table. Names and shapes only: no files, no tensors.

The table is expanded for a configuration and then looked up exactly, so a digit inside a name
(`dense_h_to_4h`) cannot be taken for a layer. Sections and rows are in the order in which SAT writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from cogbatch.model.configuration_cogvlm import CogVLMConfig, CogVLMVisionConfig

Split = Literal["same", "rows", "cols", "vocab", "qkv", "vit_qkv"]
"""How SAT cuts a tensor over model-parallel ranks. same: every rank has all of it; rows, cols: equal chunks
of dim 0 or 1; vocab: rows from 1,000 entries on, else same; qkv, vit_qkv: rows of q, k and v, each alone."""


class TensorName(NamedTuple):
    """One tensor under both names (hf None: dropped on purpose); nothing is transposed, so one shape.

    dim: which dimension model-parallel ranks share; None: every rank has all of it. sections: lengths along
    dim that are shared each on their own, q | k | v for example; their sum is shape[dim].
    """

    sat: str
    hf: str | None
    shape: tuple[int, ...]
    dim: int | None
    sections: tuple[int, ...]


class Section(NamedTuple):
    """One SAT module: both prefixes, and rows of (SAT suffix, HF suffix, shape in `_sizes`, split).

    {l} in the prefixes: once per language layer, {x}: per language layer with a visual expert, {e}: per EVA
    layer. when: v1 and v2 differ.
    """

    sat: str
    hf: str
    rows: tuple[tuple[str, str | None, str, Split], ...]
    when: Literal["", "conv", "expert_bias", "no_expert_bias"] = ""


ROTARY = "mixins.rotary.rotary_emb.inv_freq"
CONV = "mixins.eva.conv.weight"
# sat/model/transformer.py: a smaller vocabulary is a plain embedding, whole on every rank.
_VOCABULARY_PARALLEL_FROM = 1000

# fmt: off
_TABLE = (
    Section("mixins.lm.", "", (
        ("lm_head.weight",                         "lm_head.weight",                "V H",     "rows"),
    )),
    Section("mixins.eva.", "model.vision.", (
        ("boi",                                    "boi",                           "1 1 H",   "same"),
        ("eoi",                                    "eoi",                           "1 1 H",   "same"),
    )),
    Section("mixins.eva.vit_model.", "model.vision.patch_embedding.", (
        ("mixins.patch_embedding.proj.weight",     "proj.weight",                   "E C p p", "same"),
        ("mixins.patch_embedding.proj.bias",       "proj.bias",                     "E",       "same"),
        ("transformer.word_embeddings.weight",     "cls_embedding",                 "1 E",     "same"),
        ("transformer.position_embeddings.weight", "position_embedding.weight",     "P E",     "same"),
    )),
    Section("mixins.eva.vit_model.transformer.layers.{e}.", "model.vision.transformer.layers.{e}.", (
        ("input_layernorm.weight",                 "input_layernorm.weight",           "E",    "same"),
        ("input_layernorm.bias",                   "input_layernorm.bias",             "E",    "same"),
        ("attention.query_key_value.weight",       "attention.query_key_value.weight", "3E E", "vit_qkv"),
        ("attention.query_key_value.bias",         "attention.query_key_value.bias",   "3E",   "vit_qkv"),
        ("attention.dense.weight",                 "attention.dense.weight",           "E E",  "cols"),
        ("attention.dense.bias",                   "attention.dense.bias",             "E",    "same"),
        ("post_attention_layernorm.weight",        "post_attention_layernorm.weight",  "E",    "same"),
        ("post_attention_layernorm.bias",          "post_attention_layernorm.bias",    "E",    "same"),
        ("mlp.dense_h_to_4h.weight",               "mlp.fc1.weight",                   "F E",  "rows"),
        ("mlp.dense_h_to_4h.bias",                 "mlp.fc1.bias",                     "F",    "rows"),
        ("mlp.dense_4h_to_h.weight",               "mlp.fc2.weight",                   "E F",  "cols"),
        ("mlp.dense_4h_to_h.bias",                 "mlp.fc2.bias",                     "E",    "same"),
    )),
    Section("mixins.eva.conv.", "model.vision.conv.", (
        ("weight",                                 "weight",                        "E E 2 2", "same"),
        ("bias",                                   "bias",                          "E",       "same"),
    ), when="conv"),
    Section("mixins.eva.linear_proj.", "model.vision.linear_proj.", (
        ("linear_proj.weight",                     "linear_proj.weight",            "H E",     "same"),
        ("norm1.weight",                           "norm1.weight",                  "H",       "same"),
        ("norm1.bias",                             "norm1.bias",                    "H",       "same"),
        ("dense_h_to_4h.weight",                   "dense_h_to_4h.weight",          "I H",     "same"),
        ("gate_proj.weight",                       "gate_proj.weight",              "I H",     "same"),
        ("dense_4h_to_h.weight",                   "dense_4h_to_h.weight",          "H I",     "same"),
    )),
    Section("mixins.mlp.gate_proj.{l}.", "model.layers.{l}.mlp.language_mlp.gate_proj.", (
        ("weight",                                 "weight",                        "I H",     "rows"),
    )),
    Section("mixins.mlp.vision_dense_h_to_4h_list.{x}.", "model.layers.{x}.mlp.vision_mlp.up_proj.", (
        ("weight",                                 "weight",                        "I H",     "rows"),
    )),
    Section("mixins.mlp.vision_dense_4h_to_h_list.{x}.", "model.layers.{x}.mlp.vision_mlp.down_proj.", (
        ("weight",                                 "weight",                        "H I",     "cols"),
    )),
    Section("mixins.mlp.vision_gate_proj.{x}.", "model.layers.{x}.mlp.vision_mlp.gate_proj.", (
        ("weight",                                 "weight",                        "I H",     "rows"),
    )),
    Section("mixins.rotary.", "", (
        ("rotary_emb.inv_freq",                    None,                            "D/2",     "same"),
    )),
    Section("mixins.rotary.vision_query_key_value_list.{x}.",
            "model.layers.{x}.self_attn.vision_expert_query_key_value.", (
        ("weight",                                 "weight",                        "Q H",     "qkv"),
    ), when="no_expert_bias"),
    Section("mixins.rotary.vision_query_key_value_list.{x}.",
            "model.layers.{x}.self_attn.vision_expert_query_key_value.", (
        ("weight",                                 "weight",                        "Q H",     "qkv"),
        ("bias",                                   "bias",                          "Q",       "qkv"),
    ), when="expert_bias"),
    Section("mixins.rotary.vision_dense_list.{x}.", "model.layers.{x}.self_attn.vision_expert_dense.", (
        ("weight",                                 "weight",                        "H H",     "cols"),
    )),
    Section("transformer.", "model.", (
        ("word_embeddings.weight",                 "embed_tokens.weight",           "V H",     "vocab"),
    )),
    Section("transformer.layers.{l}.", "model.layers.{l}.", (
        ("input_layernorm.weight",                 "input_layernorm.weight",           "H",    "same"),
        ("attention.query_key_value.weight",
                                    "self_attn.language_expert_query_key_value.weight",       "Q H",  "qkv"),
        ("attention.dense.weight",  "self_attn.language_expert_dense.weight",                 "H H",  "cols"),
        ("post_attention_layernorm.weight",        "post_attention_layernorm.weight",  "H",    "same"),
        ("mlp.dense_h_to_4h.weight",               "mlp.language_mlp.up_proj.weight",  "I H",  "rows"),
        ("mlp.dense_4h_to_h.weight",               "mlp.language_mlp.down_proj.weight", "H I", "cols"),
    )),
    Section("transformer.", "model.", (
        ("final_layernorm.weight",                 "norm.weight",                   "H",       "same"),
    )),
)
# fmt: on


def tensor_names(config: CogVLMConfig) -> tuple[TensorName, ...]:
    """Every tensor that a SAT checkpoint of this configuration holds, in SAT's order."""
    return tuple(_expand(config))


def rotary_names(config: CogVLMConfig) -> tuple[str, ...]:
    """The per-layer rotary buffers [D/2] of the official HF class. SAT has one table for all layers."""
    return tuple(f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(config.num_hidden_layers))


def is_rotary(hf_name: str) -> bool:
    """True for the HF buffers that our class ignores."""
    return hf_name.endswith(".rotary_emb.inv_freq")


def vision_config(config: CogVLMConfig) -> CogVLMVisionConfig:
    """The vision part, as the object that CogVLMConfig always makes of it."""
    vision = config.vision_config
    assert isinstance(vision, CogVLMVisionConfig)
    return vision


def _expand(config: CogVLMConfig) -> Iterator[TensorName]:
    sizes, counts = _sizes(config), _layer_counts(config)
    bias = config.vision_expert_qkv_bias
    present = {
        "": True,
        "conv": vision_config(config).downsample,
        "expert_bias": bias,
        "no_expert_bias": not bias,
    }
    for section in _TABLE:
        if not present[section.when]:
            continue
        _, brace, rest = section.sat.partition("{")
        layer = rest[0] if brace else ""
        for index in range(counts[layer]):
            sat, hf = (prefix.replace(f"{{{layer}}}", str(index)) for prefix in (section.sat, section.hf))
            for sat_suffix, hf_suffix, shape, split in section.rows:
                lengths = tuple(sizes[symbol] for symbol in shape.split())
                yield TensorName(
                    sat + sat_suffix,
                    None if hf_suffix is None else hf + hf_suffix,
                    lengths,
                    *_shared(split, lengths, sizes),
                )


def _shared(
    split: Split, shape: tuple[int, ...], sizes: dict[str, int]
) -> tuple[int | None, tuple[int, ...]]:
    """(dim, sections) of TensorName."""
    if split == "same" or (split == "vocab" and shape[0] < _VOCABULARY_PARALLEL_FROM):
        return None, ()
    if split == "cols":
        return 1, (shape[1],)
    if split == "qkv":
        keys = (sizes["Q"] - sizes["H"]) // 2
        return 0, (sizes["H"], keys, keys)
    return 0, (sizes["E"],) * 3 if split == "vit_qkv" else (shape[0],)


def _layer_counts(config: CogVLMConfig) -> dict[str, int]:
    experts = config.num_vision_expert_layers
    return {
        "": 1,
        "l": config.num_hidden_layers,
        "x": config.num_hidden_layers if experts is None else experts,
        "e": vision_config(config).num_hidden_layers,
    }


def _sizes(config: CogVLMConfig) -> dict[str, int]:
    vision, hidden, head = vision_config(config), config.hidden_size, config.head_dim
    kv_heads = config.num_multi_query_heads or config.num_attention_heads
    return {
        "1": 1,
        "2": 2,
        "V": config.vocab_size,
        "H": hidden,
        "I": config.intermediate_size,
        "Q": hidden + 2 * kv_heads * head,
        "D/2": head // 2,
        "E": vision.hidden_size,
        "3E": 3 * vision.hidden_size,
        "F": vision.intermediate_size,
        "P": vision.num_positions,
        "C": vision.in_channels,
        "p": vision.patch_size,
    }
