"""Run with `python -I`: loads a converted directory with plain transformers and measures it.

A program, not a test: it must run where cogbatch cannot be imported.
Arguments: model directory, golden folder.
"""

import contextlib
import importlib.abc
import json
import sys


class _NoCogbatch(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname.split(".")[0] == "cogbatch":
            raise ModuleNotFoundError(f"{fullname} is not to be had here")


def main(model_dir: str, golden: str) -> dict[str, object]:
    sys.meta_path.insert(0, _NoCogbatch())
    with contextlib.suppress(ModuleNotFoundError):
        import cogbatch  # noqa: F401

        raise SystemExit("cogbatch was importable")

    import torch
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        model_dir, trust_remote_code=True, dtype=torch.float32
    ).eval()
    inputs, expected = load_file(f"{golden}/inputs.safetensors"), load_file(f"{golden}/expected.safetensors")
    items = sorted({name.split(".")[0] for name in inputs})
    logit_errors, same_greedy = {}, {}
    for item in items:
        # Items without an image carry all-zero masks, and pixels that are not to be looked at.
        types = inputs[f"{item}.image_embed_mask"].long()
        pixels = inputs[f"{item}.pixel_values"] if types.any() else None
        given = {"input_ids": inputs[f"{item}.input_ids"], "token_type_ids": types, "pixel_values": pixels}
        with torch.no_grad():
            logits = model(**given).logits
            tokens = model.generate(**given, do_sample=False, max_new_tokens=16, eos_token_id=None)
        logit_errors[item] = float((logits - expected[f"{item}.logits"]).abs().max())
        if f"{item}.greedy" in expected:
            reference = expected[f"{item}.greedy"].tolist()
            same_greedy[item] = tokens[0, -len(reference) :].tolist() == reference
    return {
        "logit_errors": logit_errors,
        "same_greedy": same_greedy,
        "architecture": type(model).__name__,
        "model_type": AutoConfig.from_pretrained(model_dir, trust_remote_code=True).model_type,
        "cogbatch_loaded": "cogbatch" in sys.modules,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2])))
