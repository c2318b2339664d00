"""Prompts and pixels: from a question and a PIL image to model inputs. Travels with every checkpoint.

Images are resized by PIL's antialiased bicubic filter, as torchvision does on PIL images: it is not needed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, ProcessorMixin
from transformers.image_processing_base import ImageProcessingMixin

from .configuration_cogvlm import CogVLMConfig
from .templates import render_prompt

# CLIP's normalisation constants (Radford et al. 2021).
IMAGE_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
IMAGE_STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)


def preprocess_image(image: Image.Image, image_size: int) -> torch.Tensor:
    """PIL image -> [3, image_size, image_size] float32, CLIP-normalised. The aspect ratio is not kept."""
    resized = image.convert("RGB").resize((image_size, image_size), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized, dtype=np.float32) / 255.0
    pixels = (pixels - IMAGE_MEAN) / IMAGE_STD
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def encode_prompt(
    tokenizer: Any, text: str, *, bos_token_id: int, pad_token_id: int, num_image_tokens: int
) -> tuple[list[int], list[int]]:
    """(ids, token types) of the whole prompt: [bos] [boi, patches, eoi] [text], the text encoded on its own.

    num_image_tokens: P + 2, or 0 without an image. The ids of image tokens are placeholders.
    """
    text_ids = list(tokenizer.encode(text, add_special_tokens=False))
    ids = [bos_token_id, *[pad_token_id] * num_image_tokens, *text_ids]
    return ids, [0, *[1] * num_image_tokens, *[0] * len(text_ids)]


def build_conversation(
    tokenizer: Any,
    *,
    query: str,
    history: Sequence[tuple[str, str]],
    images: Sequence[Image.Image],
    template_version: str,
    config: CogVLMConfig,
) -> dict[str, Any]:
    """Unbatched input_ids, token_type_ids, attention_mask [S]; images: a list of at most one [3, px, px]."""
    if len(images) > 1:
        raise ValueError(f"CogVLM takes at most one image a prompt, got {len(images)}")
    text = render_prompt(template_version, query, history)
    ids, types = encode_prompt(
        tokenizer,
        text,
        bos_token_id=config.bos_token_id,
        pad_token_id=config.pad_token_id,
        num_image_tokens=config.num_image_tokens if images else 0,
    )
    return {
        "input_ids": torch.tensor(ids),
        "token_type_ids": torch.tensor(types),
        "attention_mask": torch.ones(len(ids), dtype=torch.long),
        "images": [preprocess_image(image, config.vision_config.image_size) for image in images],
    }


class CogVLMImageProcessor(ImageProcessingMixin):
    """PIL images to pixel_values [N, 3, size, size]."""

    model_input_names = ["pixel_values"]  # noqa: RUF012 - transformers' own convention

    def __init__(self, image_size: int = 490, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.image_size = image_size

    def __call__(
        self, images: Image.Image | Sequence[Image.Image], return_tensors: str | None = "pt"
    ) -> BatchFeature:
        pictures = [images] if isinstance(images, Image.Image) else list(images)
        pixels = torch.stack([preprocess_image(picture, self.image_size) for picture in pictures])
        return BatchFeature({"pixel_values": pixels}, tensor_type=return_tensors)


class CogVLMProcessor(ProcessorMixin):
    """Questions and images to a left-padded batch of model inputs.

    num_image_tokens: P + 2 of the model. template_version: as in the model's config.json.
    """

    def __init__(
        self,
        image_processor: CogVLMImageProcessor | None = None,
        tokenizer: Any = None,
        num_image_tokens: int = 1227,
        template_version: str = "chat",
        chat_template: str | None = None,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.num_image_tokens = num_image_tokens
        self.template_version = template_version

    def __call__(
        self,
        images: Image.Image | Sequence[Image.Image | None] | None = None,
        text: str | Sequence[str] = "",
        history: Sequence[Sequence[tuple[str, str]]] | None = None,
        template_version: str | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """input_ids, token_type_ids, attention_mask [B, S], and pixel_values [number of images, 3, px, px].

        Args:
            images: one per text, None where a text has none.
            text: questions without template. history: per text, earlier (query, answer) turns.
            template_version: overrides the processor's.
        """
        texts = [text] if isinstance(text, str) else list(text)
        pictures = (
            [images] * len(texts) if images is None or isinstance(images, Image.Image) else list(images)
        )
        histories = history if history is not None else [()] * len(texts)
        pad = self.tokenizer.pad_token_id or 0
        rows = [
            encode_prompt(
                self.tokenizer,
                render_prompt(template_version or self.template_version, query, turns),
                bos_token_id=self.tokenizer.bos_token_id,
                pad_token_id=pad,
                num_image_tokens=self.num_image_tokens if picture is not None else 0,
            )
            for query, picture, turns in zip(texts, pictures, histories, strict=True)
        ]
        longest = max(len(ids) for ids, _ in rows)
        fill = [longest - len(ids) for ids, _ in rows]
        batch: dict[str, Any] = {
            "input_ids": [[pad] * n + ids for n, (ids, _) in zip(fill, rows, strict=True)],
            "token_type_ids": [[0] * n + types for n, (_, types) in zip(fill, rows, strict=True)],
            "attention_mask": [[0] * n + [1] * len(ids) for n, (ids, _) in zip(fill, rows, strict=True)],
        }
        shown = [picture for picture in pictures if picture is not None]
        if shown:
            batch["pixel_values"] = self.image_processor(shown)["pixel_values"]
        return BatchFeature(batch, tensor_type=return_tensors)


CogVLMImageProcessor.register_for_auto_class("AutoImageProcessor")
CogVLMProcessor.register_for_auto_class("AutoProcessor")
