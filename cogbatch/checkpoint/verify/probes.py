"""Fixed model inputs for comparing two implementations: token ids from a seed, no tokenizer, no image files.

Positions and masks are written out here rather than derived by either side's code.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cogbatch.checkpoint.names import vision_config
from cogbatch.model.configuration_cogvlm import CogVLMConfig

GREEDY_TOKENS = 16
_SEED = 0
# Logits of a long prompt are compared at this many places, the last one among them.
_MAX_KEPT = 256

# name -> (with an image, text tokens behind it)
_KINDS = {
    "image": (True, 0),
    "image_short": (True, 6),
    "image_long": (True, 96),
    "text_short": (False, 5),
    "text_long": (False, 160),
}


class Probe(NamedTuple):
    """One prompt, [S] each: bos, an image block (boi, patches, eoi), text.

    image_mask: the whole block. expert_mask: what the visual expert sees, all of it but eoi. pixel_values:
    [1, 3, px, px], None for text only. kept: places whose logits are compared.
    """

    input_ids: Tensor
    position_ids: Tensor
    image_mask: Tensor
    expert_mask: Tensor
    pixel_values: Tensor | None
    kept: Tensor


def make_probes(config: CogVLMConfig) -> dict[str, Probe]:
    """The same probes for the same sizes, on every machine."""
    chance = torch.Generator().manual_seed(_SEED)
    return {name: _probe(config, chance, image=image, text=text) for name, (image, text) in _KINDS.items()}


def to_tensors(probes: dict[str, Probe]) -> dict[str, Tensor]:
    """For a file: {name}.{field}."""
    return {
        f"{name}.{field}": tensor.contiguous()
        for name, probe in probes.items()
        for field, tensor in probe._asdict().items()
        if tensor is not None
    }


def _probe(config: CogVLMConfig, chance: torch.Generator, *, image: bool, text: int) -> Probe:
    vision = vision_config(config)
    patches = vision.num_patches if image else 0
    block = patches + 2 if image else 0
    bos, pad = config.bos_token_id, config.pad_token_id
    eos = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    words = torch.tensor([i for i in range(config.vocab_size) if i not in {bos, pad, *eos}] or [bos])
    drawn = words[torch.randint(len(words), (text,), generator=chance)]
    ids = torch.cat([torch.tensor([bos] + [pad] * block), drawn])
    inside = torch.zeros(len(ids), dtype=torch.bool)
    inside[1 : 1 + block] = True
    expert = inside.clone()
    expert[block] = False  # eoi; without an image this is bos, which is False anyway
    # bos 0, boi 1, every patch 2, eoi 3, text from there.
    positions = [0, 1, *[2] * patches, 3] if image else [0]
    positions += range(positions[-1] + 1, positions[-1] + 1 + text)
    size = (1, vision.in_channels, vision.image_size, vision.image_size)
    kept = torch.linspace(0, len(ids) - 1, min(len(ids), _MAX_KEPT)).round().long()
    return Probe(
        input_ids=ids,
        position_ids=torch.tensor(positions),
        image_mask=inside,
        expert_mask=expert,
        pixel_values=torch.randn(size, generator=chance) if image else None,
        kept=kept,
    )
