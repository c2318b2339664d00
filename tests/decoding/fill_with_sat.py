"""A program: SAT's own filling_sequence with our strategies. Run with -m, one process per rank file.

Argument: a JSON file that holds a `FillRequest`. Rank 0 writes the candidates of each run to `out`.
"""

import dataclasses
import json
import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors.torch import load_file
from sat.generation.autoregressive_sampling import filling_sequence, stream_filling_sequence
from sat.model.cached_autoregressive_model import CachedAutoregressiveMixin
from torch import Tensor

from cogbatch.checkpoint.names import ROTARY
from cogbatch.checkpoint.sat import load_sat_tensors
from cogbatch.checkpoint.verify.sat_model import CogVLMForSat, build_args
from cogbatch.decoding.sat_adapter import SatStrategy
from cogbatch.model.decoder import image_positions
from cogbatch.model.directory import load_tokenizer
from cogbatch.types import GenerationParams
from tests.tiny import ByteTokenizer

SEEN = ("pixels", "image_embed_mask", "vision_expert_mask")


class FillRequest(TypedDict):
    """prompts: a file with {item}.ids, {item}.types [S] and {item}.pixels [3, px, px] unless text only.

    tokenizer: a directory; None: bytes. runs: (item, params, batch_size, whether streamed).
    """

    config: str
    weights: list[str]
    prompts: str
    tokenizer: str | None
    end_tokens: list[int]
    runs: list[tuple[str, dict[str, Any], int, bool]]
    out: str


class CachingCogVLM(CogVLMForSat):
    """As the official demos run it: with SAT's cache, and without the image once it is in the cache."""

    def __init__(self, args: Namespace, *, generation: int) -> None:
        super().__init__(args, generation=generation)
        self.add_mixin("auto-regressive", CachedAutoregressiveMixin())

    def forward(self, input_ids: Tensor, **kw_args: Any) -> Any:
        if input_ids.shape[1] == 1:
            kw_args = {name: value for name, value in kw_args.items() if name not in SEEN}
        return super().forward(input_ids=input_ids, **kw_args)


def main(request: FillRequest) -> None:
    rank = int(os.environ["RANK"])
    model = load(request, rank)
    tokenizer = (
        ByteTokenizer() if request["tokenizer"] is None else load_tokenizer(Path(request["tokenizer"]))
    )
    prompts = load_file(request["prompts"])
    results = []
    for item, values, batch_size, streamed in request["runs"]:
        params = GenerationParams(**values)
        strategy = SatStrategy(params, end_tokens=request["end_tokens"], item_id=item)
        prompt = {key.split(".")[1]: value for key, value in prompts.items() if key.startswith(f"{item}.")}
        length = len(prompt["ids"]) + params.max_new_tokens
        sequences = fill(model, prompt, strategy, length=length, batch_size=batch_size, streamed=streamed)
        answers = [list(choice.hypothesis.tokens) for choice in strategy.choices]
        assert [sequence.tolist() for sequence in sequences] == [
            prompt["ids"].tolist() + answer for answer in answers
        ]
        results.append([dataclasses.asdict(candidate) for candidate in strategy.candidates(tokenizer)])
    Path(f"{request['out']}.{rank}").write_text(json.dumps(results), encoding="utf-8")


def load(request: FillRequest, rank: int) -> CachingCogVLM:
    """The checkpoint in fp32 by its own keys, with the exact rotary table."""
    config = json.loads(Path(request["config"]).read_text(encoding="utf-8"))
    args = build_args(CogVLMForSat, config, num_ranks=len(request["weights"]))
    model = CachingCogVLM(args, generation=2 if "CogVLM2" in config["model_class"] else 1).eval()
    rotary = model.get_mixin("rotary").rotary_emb
    tensors = load_sat_tensors(Path(request["weights"][rank]))
    model.load_state_dict({**tensors, ROTARY: rotary._compute_inv_freq()})
    rotary.inv_freq = rotary._compute_inv_freq()
    return model


@torch.no_grad()
def fill(
    model: CachingCogVLM,
    prompt: dict[str, Tensor],
    strategy: SatStrategy,
    *,
    length: int,
    batch_size: int,
    streamed: bool,
) -> list[Tensor]:
    """What SAT returns for one prompt; length: of the whole sequence."""
    ids, types = prompt["ids"], prompt["types"]
    room = length - len(ids)
    seq = torch.nn.functional.pad(ids, (0, room), value=-1)
    positions = image_positions(torch.nn.functional.pad(types, (0, room))[None])
    seen: dict[str, Any] = {}
    if "pixels" in prompt:
        is_image = types == 1
        is_vision = is_image & is_image.roll(-1)  # boi and patches, not eoi
        seen = dict(zip(SEEN, (prompt["pixels"][None], is_image[None], is_vision[None]), strict=True))

    def masks(seq: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return seq[None], torch.ones(1, 1, len(seq), len(seq)).tril(), positions

    options = {"strategy": strategy, "get_masks_and_position_ids": masks, **seen}
    if not streamed:
        return filling_sequence(model, seq, batch_size, **options)[0]
    for tokens, _ in stream_filling_sequence(model, seq, batch_size, **options):
        assert torch.equal(tokens[:, : len(ids)], ids.expand(len(tokens), -1))
    return strategy.finalize(tokens, None)[0]


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
