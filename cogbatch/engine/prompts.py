"""From a request to what prefill needs: ids, token types, pixels. Runs in threads ahead of the engine.

Whatever is wrong with one request becomes a RequestError here, never an exception for the batch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import torch

from cogbatch.decoding.params import check_params
from cogbatch.decoding.parts import Part, parts
from cogbatch.engine.memory import image_tokens
from cogbatch.errors import CogbatchError, ImageError, PromptError
from cogbatch.images import DEFAULT_LIMITS, ImageLimits, load_image
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.processing_cogvlm import encode_prompt, preprocess_image
from cogbatch.model.templates import render_prompt
from cogbatch.types import GenerationParams, GenerationRequest, RequestError, Stage


@dataclass(frozen=True)
class Prompt:
    """What one run of a strategy continues.

    ids, token_types: [S]; type 1 marks boi, patches and eoi. part: its max_new_tokens is cut to the room that
    the model's context leaves.
    """

    ids: list[int]
    token_types: list[int]
    part: Part

    @property
    def num_rows(self) -> int:
        """The most rows that it runs at a time."""
        return self.part.strategy.num_rows(self.part.params)

    @property
    def new_tokens(self) -> int:
        """The most tokens that its rows may come to hold of their own."""
        return self.num_rows * self.part.params.max_new_tokens


@dataclass(frozen=True)
class Picture:
    """The pixels of a request, and what is the same for equal pixels, and only those.

    pixels: [3, px, px] normalised. digest: of the pixels. num_tokens: that they come to with bos in front.
    """

    pixels: torch.Tensor
    digest: bytes
    num_tokens: int


@dataclass(frozen=True)
class Task:
    """A request ready for prefill: one prompt, or several of a portfolio, about one image.

    picture: None for text only. params: checked; the request's own or the call's.
    """

    prompts: tuple[Prompt, ...]
    picture: Picture | None
    params: GenerationParams

    @property
    def num_rows(self) -> int:
        return sum(prompt.num_rows for prompt in self.prompts)

    @property
    def own_tokens(self) -> int:
        """The most tokens of keys and values that it may come to hold, without its image: prompts once, new
        tokens for each row."""
        image = 0 if self.picture is None else self.picture.num_tokens
        return sum(len(prompt.ids) - image + prompt.new_tokens for prompt in self.prompts)


def prepare(
    request: GenerationRequest,
    params: GenerationParams,
    *,
    tokenizer: Any,
    config: CogVLMConfig,
    template_version: str,
    image_limits: ImageLimits = DEFAULT_LIMITS,
) -> Task | RequestError:
    """The request as a task, or why it cannot be one."""
    stage: Stage = "generate"
    try:
        if request.params is not None:
            if not isinstance(request.params, GenerationParams):
                raise ValueError(f"params is a {type(request.params).__name__}: expected GenerationParams")
            check_params(request.params)
            params = request.params
        stage = "image"
        picture = None
        if request.image is not None:
            image = load_image(request.image, limits=image_limits)
            pixels = preprocess_image(image, config.vision_config.image_size)
            picture = Picture(pixels, _digest(pixels), image_tokens(config))
        stage = "prompt"
        if not isinstance(request.prompt, str):
            raise PromptError(f"the prompt is {type(request.prompt).__name__}: expected a string")
        prompts = []
        for part in parts(params):
            ids, token_types = encode_prompt(
                tokenizer,
                render_prompt(template_version, _wording(part, request.prompt), request.history),
                bos_token_id=config.bos_token_id,
                pad_token_id=config.pad_token_id,
                num_image_tokens=0 if picture is None else config.num_image_tokens,
            )
            prompts.append(Prompt(ids, token_types, _fit(part, ids, config)))
        return Task(tuple(prompts), picture, params)
    except (CogbatchError, ValueError) as problem:
        return RequestError(stage=stage, type=type(problem).__name__, message=str(problem))
    except BaseException as problem:  # of a thread; panics of Rust tokenizers are no Exception
        kind = ImageError if stage == "image" else PromptError
        return RequestError(stage=stage, type=kind.__name__, message=f"{type(problem).__name__}: {problem}")


def _digest(pixels: torch.Tensor) -> bytes:
    return hashlib.blake2b(pixels.contiguous().numpy().data, digest_size=16).digest()


def _wording(part: Part, prompt: str) -> str:
    # Not str.format: braces in prompts and questions are text.
    return prompt if part.prompt is None else part.prompt.replace("{prompt}", prompt)


def _fit(part: Part, ids: list[int], config: CogVLMConfig) -> Part:
    """part with max_new_tokens cut to what the context of max_position_embeddings tokens leaves."""
    room = config.max_position_embeddings - len(ids)
    if room < 1:
        raise PromptError(
            f"the prompt has {len(ids)} tokens with its image and template, the model takes "
            f"{config.max_position_embeddings} with at least one new token: shorten the prompt"
        )
    if max(ids) >= config.vocab_size:
        raise PromptError(
            f"token id {max(ids)} is outside the model's vocabulary of {config.vocab_size}: "
            "the tokenizer is not the one of this model"
        )
    params = part.params
    if room >= params.max_new_tokens:
        return part
    shorter = replace(params, max_new_tokens=room, min_new_tokens=min(params.min_new_tokens, room))
    return replace(part, params=shorter)
