"""A program: the original checkpoint under SwissArmyTransformer. Run with -m, one process per rank file.

Argument: a JSON file that holds a `SatRequest`. Rank 0 writes <out>/<variant>.safetensors and report.json.
Weights come from the files by their own keys; nothing of the conversion is used.

Variants: `expected` is what a faithful conversion computes (rounded where it rounds); `unrounded` the
original in fp32 where that is something else; `other_table` is `expected` with the rotary table not chosen.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypedDict

import torch
from safetensors.torch import load_file, save_file
from sat.model.base_model import BaseModel
from sat.model.finetune.lora2 import LoraLinear, LoraMixin, merge_linear_lora
from torch import Tensor, nn

from cogbatch.checkpoint.sat import load_sat_tensors
from cogbatch.checkpoint.verify.sat_model import CogVLMForSat, build_args
from cogbatch.errors import CheckpointError

_ROTARY = "mixins.rotary.rotary_emb.inv_freq"


class SatRequest(TypedDict):
    """probes: a file of probes.py. continued: the 16 token ids to put behind each, {name}.greedy.

    target_dtype: what the conversion stored tensors as; None: as they were. rope_dtype: what rotary tables
    are computed in when the stored one was kept; None when the exact one is used.
    """

    config: str
    weights: list[str]
    probes: str
    continued: str
    target_dtype: str | None
    rope_dtype: str | None
    out: str


class SatReport(TypedDict):
    """variants: files written. lora: how many weights have LoRA. table_change: the largest relative
    difference of the stored rotary table from the exact one; None: there is none in the file.
    """

    variants: list[str]
    lora: int
    table_change: float | None


def main(request: SatRequest) -> None:
    rank, num_ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    config = json.loads(Path(request["config"]).read_text(encoding="utf-8"))
    tensors = load_sat_tensors(Path(request["weights"][rank]), lora=True)
    args = build_args(CogVLMForSat, config, num_ranks=num_ranks)
    model = CogVLMForSat(args, generation=2 if "CogVLM2" in config["model_class"] else 1).eval()
    with torch.no_grad():
        lora = _add_lora(model, tensors)
        _load(model, tensors, where=request["weights"][rank])
        if lora and num_ranks > 1:
            # SAT never sums the LoRA branch of `dense` over ranks: there, only merged weights mean something.
            _merge_lora(model)
        runs = _variants(model, tensors, request)
        written = [variant for variant in runs if _run(model, request, variant, write=rank == 0)]
    if rank == 0:
        report = SatReport(variants=written, lora=lora, table_change=_table_change(model, tensors))
        (Path(request["out"]) / "report.json").write_text(json.dumps(report), encoding="utf-8")


def _variants(model: CogVLMForSat, tensors: Mapping[str, Tensor], request: SatRequest) -> Iterator[str]:
    """Puts the model into one variant after the other; the name of each."""
    rotary = model.get_mixin("rotary").rotary_emb
    exact, stored = rotary._compute_inv_freq(), tensors.get(_ROTARY)
    keeps = request["rope_dtype"] is not None
    if keeps and stored is None:
        raise CheckpointError(f"{request['weights'][0]}: no {_ROTARY!r}, though the conversion kept one")
    kept = None if stored is None else stored.to(getattr(torch, request["rope_dtype"] or "float32"))
    _set_table(model, kept if keeps and kept is not None else exact)
    dtypes = _converted_dtypes(tensors, request["target_dtype"])
    if any(converted != torch.float32 and rounds for converted, rounds in dtypes.values()):
        yield "unrounded"
        _merge_lora(model)
        for name, parameter in model.named_parameters():
            parameter.copy_(parameter.to(dtypes[name][0]))
    yield "expected"
    if stored is not None and not torch.equal(stored.float(), exact):
        _set_table(model, exact if keeps else stored)
        yield "other_table"


def _converted_dtypes(
    tensors: Mapping[str, Tensor], target: str | None
) -> dict[str, tuple[torch.dtype, bool]]:
    """Plain key -> (dtype after conversion, whether values may change on the way there)."""
    found: dict[str, tuple[torch.dtype, bool]] = {}
    for key, tensor in tensors.items():
        if ".matrix_A." in key or ".matrix_B." in key:
            continue
        converted = tensor.dtype if target is None else getattr(torch, target)
        merges = ".original.weight" in key
        found[key.replace(".original.", ".")] = (converted, merges or converted != tensor.dtype)
    return found


def _add_lora(model: CogVLMForSat, tensors: Mapping[str, Tensor]) -> int:
    """SAT's LoRA layers where the keys have them. Returns how many weights those are."""
    for prefix, part in (("", model), ("mixins.eva.vit_model.", model.get_mixin("eva").vit_model)):
        pattern = re.compile(
            re.escape(prefix) + r"transformer\.layers\.(\d+)\.attention\.query_key_value\.matrix_A\.0"
        )
        layers_by_rank: dict[int, list[int]] = {}
        for key, tensor in tensors.items():
            if match := pattern.fullmatch(key):
                layers_by_rank.setdefault(tensor.shape[0], []).append(int(match[1]))
        for r, layers in layers_by_rank.items():
            mixin = LoraMixin(len(part.transformer.layers), r, layer_range=sorted(layers))
            part.add_mixin(f"lora_{r}", mixin, reinit=True)
    return sum(isinstance(module, LoraLinear) for module in model.modules())


def _merge_lora(model: CogVLMForSat) -> None:
    """By SAT's own rule, into the linear layers that SAT would run over ranks without LoRA."""
    for part in (model, model.get_mixin("eva").vit_model):
        for attention in _attentions(part):
            for name in ("query_key_value", "dense"):
                layer = getattr(attention, name)
                if isinstance(layer, LoraLinear):
                    layer.original.weight.copy_(merge_linear_lora(layer).weight)
                    setattr(attention, name, layer.original)


def _attentions(model: BaseModel) -> Iterable[nn.Module]:
    return (layer.attention for layer in model.transformer.layers)


def _load(model: CogVLMForSat, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """load_state_dict; names and shapes are compared here because SAT's LoRA layers accept whatever comes."""
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    given.setdefault(_ROTARY, own[_ROTARY])
    for problem, names in (
        ("is without", own.keys() - given.keys()),
        ("holds what SAT's model has not:", given.keys() - own.keys()),
        ("holds other shapes than SAT's model:", [name for name in own if given.get(name) != own[name]]),
    ):
        if names:
            shown = ", ".join(f"{name} {given.get(name, own.get(name))}" for name in sorted(names)[:3])
            raise CheckpointError(f"{where} {problem} {shown} ({len(names)} in all)")
    model.load_state_dict({_ROTARY: model.state_dict()[_ROTARY], **tensors}, strict=True)


def _set_table(model: CogVLMForSat, table: Tensor) -> None:
    rotary = model.get_mixin("rotary").rotary_emb
    rotary.inv_freq = table.clone()
    rotary._seq_len_cached = 0  # cosines of another table


def _table_change(model: CogVLMForSat, tensors: Mapping[str, Tensor]) -> float | None:
    exact = model.get_mixin("rotary").rotary_emb._compute_inv_freq()
    return float(((tensors[_ROTARY].float() - exact) / exact).abs().max()) if _ROTARY in tensors else None


def _run(model: CogVLMForSat, request: SatRequest, variant: str, *, write: bool) -> bool:
    """Logits of every probe, and what SAT would say next behind each continued token."""
    probes, continued = load_file(request["probes"]), load_file(request["continued"])
    results: dict[str, Tensor] = {}
    for name in sorted({key.split(".")[0] for key in probes}):
        probe = {key.split(".")[1]: value for key, value in probes.items() if key.startswith(f"{name}.")}
        greedy = continued[f"{name}.greedy"]
        length, image = len(probe["input_ids"]), probe["image_mask"].bool()
        behind = probe["position_ids"][-1] + 1 + torch.arange(len(greedy))
        masks = {
            key: nn.functional.pad(probe[key].bool(), (0, len(greedy)))[None]
            for key in ("image_mask", "expert_mask")
        }
        seen = {
            "pixels": probe.get("pixel_values"),
            "image_embed_mask": masks["image_mask"],
            "vision_expert_mask": masks["expert_mask"],
        }
        logits = model(
            torch.cat([probe["input_ids"], greedy])[None],
            torch.cat([probe["position_ids"], behind])[None],
            -1,  # causal
            **(seen if image.any() else {}),
        )[0][0]
        results[f"{name}.logits"] = logits[probe["kept"]].clone()
        results[f"{name}.next"] = logits[length - 1 : length - 1 + len(greedy)].argmax(-1)
    if write:
        save_file(results, Path(request["out"]) / f"{variant}.safetensors")
    return True


if __name__ == "__main__":
    try:
        main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except CheckpointError as err:
        sys.exit(f"Error: {err}")
