"""A program: a model directory under transformers. Loads it, runs probes, says what it saw.

Argument: a JSON file that holds an `HfRequest`. With `own_code` the code of the directory is used, in a
process (`python -I`) that cannot import cogbatch, as users load it; otherwise cogbatch's classes.
Imports nothing of cogbatch outside of `_load_with_cogbatch`.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import json
import sys
from pathlib import Path
from typing import Any, TypedDict


class HfRequest(TypedDict):
    """dtype: float32, ..., or auto. probes: a file of probes.py; logits and greedy tokens go to out.

    prompt: what to generate 16 tokens from, with the directory's tokenizer; None without one.
    num_greedy: tokens that continue each probe; 0 for none.
    """

    model: str
    own_code: bool
    dtype: str
    probes: str
    num_greedy: int
    prompt: str | None
    out: str
    report: str


class HfReport(TypedDict):
    """failed: the stage that raised (load, inference, generate), with its message in error; None: none did.

    not_finite: probes with NaN or infinity among their logits.
    """

    failed: str | None
    error: str
    model_class: str
    dtype: str
    missing: list[str]
    unexpected: list[str]
    on_meta: list[str]
    not_finite: list[str]
    text: str | None


class _NoCogbatch(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname.split(".")[0] == "cogbatch":
            raise ModuleNotFoundError(f"{fullname} is not to be had here")


def main(request: HfRequest) -> HfReport:
    report = HfReport(
        failed="load",
        error="",
        model_class="",
        dtype="",
        missing=[],
        unexpected=[],
        on_meta=[],
        not_finite=[],
        text=None,
    )
    try:
        if request["own_code"]:
            sys.meta_path.insert(0, _NoCogbatch())
            model, info, tokenizer = _load_with_transformers(request)
        else:
            model, info, tokenizer = _load_with_cogbatch(request)
        model.eval()
        report["model_class"] = type(model).__name__
        report["dtype"] = str(model.dtype).removeprefix("torch.")
        report["missing"], report["unexpected"] = (
            sorted(info["missing_keys"]),
            sorted(info["unexpected_keys"]),
        )
        named = [*model.named_parameters(), *model.named_buffers()]
        report["on_meta"] = [name for name, tensor in named if tensor.is_meta]
        report["failed"] = "inference"
        report["not_finite"] = _run_probes(model, request)
        if tokenizer is not None and not report["not_finite"]:
            report["failed"] = "generate"
            report["text"] = _generate(model, tokenizer, str(request["prompt"]))
        report["failed"] = None
    except Exception as err:
        report["error"] = f"{type(err).__name__}: {' '.join(str(err).split())[:400]}"
    return report


def _load_with_transformers(request: HfRequest) -> tuple[Any, dict[str, Any], Any]:
    with contextlib.suppress(ModuleNotFoundError):
        import cogbatch  # noqa: F401

        raise RuntimeError("cogbatch was importable, so this would prove nothing")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, info = AutoModelForCausalLM.from_pretrained(
        request["model"],
        trust_remote_code=True,
        dtype=request["dtype"],
        local_files_only=True,
        output_loading_info=True,
    )
    if request["prompt"] is None:
        return model, info, None
    return model, info, AutoTokenizer.from_pretrained(request["model"], local_files_only=True)


def _load_with_cogbatch(request: HfRequest) -> tuple[Any, dict[str, Any], Any]:
    from cogbatch.model.directory import load_tokenizer, read_config
    from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM

    folder = Path(request["model"])
    model, info = CogVLMForCausalLM.from_pretrained(
        folder,
        config=read_config(folder),
        dtype=request["dtype"],
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    return model, info, None if request["prompt"] is None else load_tokenizer(folder)


def _run_probes(model: Any, request: HfRequest) -> list[str]:
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import GenerationConfig

    probes, results = load_file(request["probes"]), {}
    # Whatever the directory's generation_config.json says of penalties and ends is not asked here.
    pad = model.config.pad_token_id
    model_default, model.generation_config = model.generation_config, GenerationConfig(pad_token_id=pad)
    not_finite = []
    for name in sorted({key.split(".")[0] for key in probes}):
        ids = probes[f"{name}.input_ids"][None]
        pixels = probes.get(f"{name}.pixel_values")
        inputs = {
            "input_ids": ids,
            "token_type_ids": probes[f"{name}.image_mask"][None].long(),
            "pixel_values": None if pixels is None else pixels.to(model.dtype),
        }
        with torch.no_grad():
            logits = model(**inputs).logits[0, probes[f"{name}.kept"]]
        results[f"{name}.logits"] = logits.float().clone()
        if not torch.isfinite(logits).all():
            not_finite.append(name)
        elif request["num_greedy"]:
            tokens = model.generate(
                **inputs,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=request["num_greedy"],
            )
            results[f"{name}.greedy"] = tokens[0, ids.shape[1] :].clone()
    save_file(results, request["out"])
    model.generation_config = model_default
    return not_finite


def _generate(model: Any, tokenizer: Any, prompt: str) -> str:
    """The call of every CogVLM snippet, about a drawn image."""
    import torch
    from PIL import Image

    image = Image.linear_gradient("L").convert("RGB")
    inputs = model.build_conversation_input_ids(tokenizer, query=prompt, images=[image])
    batch = {
        "input_ids": inputs["input_ids"][None],
        "token_type_ids": inputs["token_type_ids"][None],
        "attention_mask": inputs["attention_mask"][None],
        "images": [[inputs["images"][0].to(model.dtype)]],
    }
    with torch.no_grad():
        tokens = model.generate(**batch, do_sample=False, max_new_tokens=16)
    new = tokens[0, inputs["input_ids"].shape[0] :]
    new = new[new < len(tokenizer)]  # a model's vocabulary may be larger than its tokenizer's
    return str(tokenizer.decode(new, skip_special_tokens=True))


if __name__ == "__main__":
    given: HfRequest = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(given["report"]).write_text(json.dumps(main(given)), encoding="utf-8")
