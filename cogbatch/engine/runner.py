"""Runs the model for the engine: one prefill per item, then decode steps over the rows of many items.

Knows tensors and caches, not requests or strategies. R rows of all items together, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cogbatch.engine.cache import ItemCache
from cogbatch.engine.groups import group_items
from cogbatch.model.decoder import image_positions, vision_spans
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM

CUDA_BLOCK_ROWS = 64


class Runner:
    """A model in evaluation mode, ready to prefill and decode.

    Args:
        block_rows: of deterministic mode, see group_items. None is 64 on CUDA (never run: no GPU at hand),
            and every item on its own on the CPU: there it costs little, since a layer's weights stay in the
            CPU's cache from item to item.
    """

    def __init__(self, model: CogVLMForCausalLM, *, block_rows: int | None = None) -> None:
        self.model = model.eval()
        self.config = model.config
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self._block_rows = block_rows or (CUDA_BLOCK_ROWS if self.device.type == "cuda" else None)

    def cached_tokens_that_fit(self) -> int | None:
        """Tokens of keys and values that fit in CUDA's free memory, a fifth kept back; None on the CPU."""
        if self.device.type != "cuda":
            return None
        free_bytes, _ = torch.cuda.mem_get_info(self.device)  # never run: no GPU at hand
        heads, layers = self.config.num_multi_query_heads, self.config.num_hidden_layers
        token_bytes = 2 * layers * heads * self.config.head_dim * self.dtype.itemsize
        return int(0.8 * free_bytes) // token_bytes

    @torch.inference_mode()
    def prefill(
        self,
        ids: list[int],
        token_types: list[int],
        pixels: torch.Tensor | None,
        *,
        max_new_tokens: int,
        same_image: ItemCache | None = None,
    ) -> tuple[ItemCache, torch.Tensor]:
        """The item's cache, filled with its prompt, and log-probabilities [1, V] of its first token.

        The image block goes first and the text behind it, in two passes, whether or not the image is shared
        with a neighbour: so its keys and values are the same numbers either way.

        Args:
            ids, token_types: [S] prompt tokens; type 1 marks boi, patches and eoi.
            pixels: [3, px, px] normalised, None for text only.
            same_image: of an item with these pixels, whose image part is taken over.
        """
        cache = ItemCache(
            num_layers=self.config.num_hidden_layers,
            num_kv_heads=self.config.num_multi_query_heads,
            head_dim=self.config.head_dim,
            prefix_length=len(ids),
            max_new_tokens=max_new_tokens,
            dtype=self.dtype,
            device=self.device,
        )
        id_row = torch.tensor([ids], device=self.device)
        types = torch.tensor([token_types], device=self.device)
        positions = image_positions(types)
        border = 0 if pixels is None else 1 + self.config.num_image_tokens
        if same_image is not None and border < len(ids):  # the last token's numbers are needed
            cache.share_prefix(same_image, border)
        for start, end in ((0, border), (border, len(ids))):
            if start == end or end <= cache.prefix_filled:
                continue
            features = None
            if start < border and pixels is not None:
                features = self.model.get_image_features(pixels[None].to(self.device))
            own = types[:, start:end]
            hidden = self.model.model.run_layers(
                self.model.model.embed(id_row[:, start:end], own, features),
                positions[:, start:end],
                vision_spans(own),
                cache.prefill,
            )
            cache.end_prefill_chunk(end - start)
        cache.next_position = int(positions[0, -1]) + 1
        return cache, self._logprobs(hidden[:, -1:])

    @torch.inference_mode()
    def decode(
        self, tokens: Sequence[int], caches: Sequence[ItemCache], *, deterministic: bool
    ) -> torch.Tensor:
        """Log-probabilities [R, V] float32 of the next token of every row.

        Args:
            tokens: [R] last token of each row, item after item.
            caches: of the items; the suffix rows of each are its rows, in order.
            deterministic: no row's numbers depend on its company.
        """
        model = self.model.model
        groups = group_items(caches, deterministic=deterministic, block_rows=self._block_rows)
        hiddens, rotaries, start = [], [], 0
        for group in groups:
            end = start + group.num_rows
            token_row = torch.tensor([*tokens[start:end], *[0] * group.padding], device=self.device)
            positions = torch.tensor(group.positions, device=self.device)
            hiddens.append(model.embed_tokens(token_row[:, None]))  # [rows, 1, H]
            rotaries.append(model.rotary(positions[:, None], self.dtype))
            start = end
        for layer in model.layers:
            for index, group in enumerate(groups):
                hiddens[index] = layer(hiddens[index], [], rotaries[index], group.attend)
        for cache in caches:
            cache.end_step()
        logprobs = [
            self._logprobs(model.norm(hidden))[: group.num_rows]
            for hidden, group in zip(hiddens, groups, strict=True)
        ]
        return logprobs[0] if len(logprobs) == 1 else torch.cat(logprobs)

    def _logprobs(self, hidden: torch.Tensor) -> torch.Tensor:
        """[R, 1, H] -> [R, V] float32, in nats."""
        return self.model.lm_head(hidden)[:, 0].float().log_softmax(-1)
