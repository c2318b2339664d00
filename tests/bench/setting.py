"""What the engine's benchmark runs: the bench model, its items, and the same in tiny."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from cogbatch import GenerationRequest
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM


@dataclass(frozen=True)
class Setting:
    """Sizes of the model and of the work.

    Args:
        image_size: pixels. prompt_tokens: behind the image, of items in turn.
        new_tokens: of every row. stream_items: of the cases with many items.
    """

    hidden: int = 512
    heads: int = 8
    layers: int = 8
    inner: int = 1376
    vocab: int = 1024
    image_size: int = 490
    vision_hidden: int = 128
    vision_inner: int = 256
    vision_layers: int = 2
    vision_heads: int = 4
    prompt_tokens: tuple[int, ...] = (30, 37, 33, 42)
    new_tokens: int = 64
    stream_items: int = 16

    @property
    def config(self) -> CogVLMConfig:
        side = self.image_size // 14
        return CogVLMConfig(
            vocab_size=self.vocab,
            hidden_size=self.hidden,
            num_attention_heads=self.heads,
            num_hidden_layers=self.layers,
            intermediate_size=self.inner,
            template_version="base",
            vision_config={
                "image_size": self.image_size,
                "num_positions": side * side + 1,
                "hidden_size": self.vision_hidden,
                "num_hidden_layers": self.vision_layers,
                "num_heads": self.vision_heads,
                "intermediate_size": self.vision_inner,
            },
        )

    def text_tokens(self, item: int) -> int:
        """Tokens of an item's prompt behind its image."""
        return self.prompt_tokens[item % len(self.prompt_tokens)]

    def requests(self, count: int, *, shared: bool = False) -> list[GenerationRequest]:
        """Items with prompts of different lengths. shared: about one image."""
        images = [picture(0 if shared else item) for item in range(count)]
        prompts = ["x" * self.text_tokens(item) for item in range(count)]
        pairs = zip(images, prompts, strict=True)
        return [GenerationRequest(str(item), image, prompt) for item, (image, prompt) in enumerate(pairs)]


FULL = Setting()
TINY = Setting(
    hidden=32,
    heads=2,
    layers=2,
    inner=48,
    vocab=300,
    image_size=56,
    vision_hidden=16,
    vision_inner=24,
    vision_layers=1,
    vision_heads=2,
    prompt_tokens=(3, 5, 4, 6),
    new_tokens=4,
    stream_items=5,
)


def bench_model(setting: Setting = FULL) -> CogVLMForCausalLM:
    """Random weights. The default is the project's bench model: 25 M language parameters, 490-px images."""
    torch.manual_seed(0)
    return CogVLMForCausalLM(setting.config).eval()


def picture(index: int) -> Image.Image:
    """An image that no other index gives."""
    noise = np.random.default_rng(index).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((640, 480))
