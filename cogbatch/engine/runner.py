"""Runs the model for the engine: image and prompt prefixes once each, then decode steps over many items.

Knows tensors and caches, not requests or strategies. S tokens of a prompt, V vocabulary, H hidden, D head
size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cogbatch.engine.cache import Geometry, ItemCache, Prefix
from cogbatch.engine.memory import image_tokens
from cogbatch.engine.products import RowBlocks
from cogbatch.engine.step import Step, linears
from cogbatch.model.decoder import image_positions, vision_spans
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM


class Runner:
    """A model in evaluation mode, ready to prefill and decode.

    Args:
        unit_rows: of deterministic mode, see RowBlocks.
    """

    def __init__(self, model: CogVLMForCausalLM, *, unit_rows: int | None = None) -> None:
        self.model = model.eval()
        self.config = model.config
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self.geometry = Geometry(
            num_layers=self.config.num_hidden_layers,
            num_kv_heads=self.config.num_multi_query_heads,
            head_dim=self.config.head_dim,
            dtype=self.dtype,
            device=self.device,
        )
        self._blocks = RowBlocks(linears(model), dtype=self.dtype, unit_rows=unit_rows)
        # One table for all steps: the last bits of a cosine depend on the size of the tensor it is taken of.
        positions = torch.arange(self.config.max_position_embeddings, device=self.device)[None]
        cos, sin = model.model.rotary(positions, self.dtype)
        self._cos, self._sin = cos[0].transpose(0, 1), sin[0].transpose(0, 1)  # [positions, 1, D]

    @torch.inference_mode()
    def prefill_image(self, bos: int, pixels: torch.Tensor) -> Prefix:
        """The part of a prompt that all prompts about an image share.

        Args:
            pixels: [3, px, px] normalised.
        """
        types = torch.ones(1, image_tokens(self.config), dtype=torch.long)
        types[:, 0] = 0
        features = self.model.get_image_features(pixels[None].to(self.device))
        embeds = torch.cat([self._embed([bos]), features.to(self.dtype)], dim=1)
        prefix = Prefix(self.geometry, types.shape[1])
        return self._fill(prefix, embeds, types, image_positions(types))

    @torch.inference_mode()
    def prefill_text(
        self, ids: Sequence[int], token_types: Sequence[int], *, behind: Prefix | None = None
    ) -> Prefix:
        """The part of a prompt behind its image, or all of one without an image.

        Args:
            ids, token_types: [S] of the whole prompt. behind: its image, if it has one.
        """
        start = 0 if behind is None else behind.length
        types = torch.tensor([token_types])
        positions = image_positions(types)[:, start:]
        prefix = Prefix(self.geometry, len(ids) - start, behind=behind.chain if behind else ())
        return self._fill(prefix, self._embed(ids[start:]), types[:, start:], positions)

    @torch.inference_mode()
    def first_logprobs(self, prefix: Prefix) -> torch.Tensor:
        """[1, V] float32 of the token behind a prefix."""
        assert prefix.last_hidden is not None
        return self.model.lm_head(prefix.last_hidden)[:, 0].float().log_softmax(-1)

    @torch.inference_mode()
    def decode(
        self, tokens: Sequence[int], caches: Sequence[ItemCache], *, deterministic: bool
    ) -> list[torch.Tensor]:
        """Log-probabilities of the next token, for every item [its rows, V] float32.

        Args:
            tokens: [R] last token of each row, item after item.
            caches: of the items; the suffix rows of each are its rows, in order.
            deterministic: no row's numbers depend on its company.
        """
        step = Step(caches, self._blocks if deterministic else None)
        positions = [cache.next_position for cache in caches for _ in range(cache.num_rows)]
        both = torch.tensor([[*row, *[0] * step.padding] for row in (tokens, positions)])
        token_row, position_row = both.to(self.device, non_blocking=True)
        logprobs = step.run(self.model, token_row, self._cos[position_row], self._sin[position_row])
        for cache in caches:
            cache.end_step()
        return logprobs

    def _embed(self, ids: Sequence[int]) -> torch.Tensor:
        return self.model.model.embed_tokens(torch.tensor([list(ids)], device=self.device))  # [1, S, H]

    def _fill(
        self, prefix: Prefix, embeds: torch.Tensor, types: torch.Tensor, positions: torch.Tensor
    ) -> Prefix:
        """Token types and positions are on the CPU, so that nothing waits for the device."""
        hidden = self.model.model.run_layers(
            embeds, positions.to(self.device), vision_spans(types), prefix.fill
        )
        prefix.next_position = int(positions[0, -1]) + 1
        prefix.last_hidden = hidden[:, -1:].clone()
        return prefix
