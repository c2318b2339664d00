"""Run with `python -I`: loads many directories with plain transformers, and says how far logits are off.

A program, not a test: it must run where cogbatch cannot be imported.
stdin: JSON, a list of [model directory, golden folder]. stdout, last line: JSON, directory -> what was seen.
"""

import importlib.abc
import json
import sys
from typing import Any


class _NoCogbatch(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname.split(".")[0] == "cogbatch":
            raise ModuleNotFoundError(f"{fullname} is not to be had here")


def load(model_dir: str, golden: str) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(
        model_dir, trust_remote_code=True, dtype=torch.float32, output_loading_info=True
    )
    inputs, expected = load_file(f"{golden}/inputs.safetensors"), load_file(f"{golden}/expected.safetensors")
    with torch.no_grad():
        logits = model.eval()(
            input_ids=inputs["chat.input_ids"],
            token_type_ids=inputs["chat.image_embed_mask"].long(),
            pixel_values=inputs["chat.pixel_values"],
        ).logits
    return {
        "logit_error": float((logits - expected["chat.logits"]).abs().max()),
        "missing": sorted(info["missing_keys"]),
        "unexpected": sorted(info["unexpected_keys"]),
    }


if __name__ == "__main__":
    sys.meta_path.insert(0, _NoCogbatch())
    print(json.dumps({folder: load(folder, golden) for folder, golden in json.load(sys.stdin)}))
