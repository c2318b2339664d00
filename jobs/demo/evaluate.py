"""Measures the demo model on held-out scenes: `python -m jobs.demo.evaluate`, a few minutes.

Writes the table into jobs/demo/README.md. Every figure is also measured with the image blanked and with the
image of another scene, judged against the right one: a model that does not look would score the same there.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cogbatch.checkpoint.directory import prepare_model
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM
from cogbatch.model.processing_cogvlm import encode_prompt, preprocess_image
from jobs.demo.check import Verdict, check_answer, check_caption
from jobs.demo.grammar import Question, ask_each
from jobs.demo.scenes import SIDE, Scene, draw, scene
from jobs.demo.vocabulary import DIRECTORY
from jobs.demo.words import ENGLISH, LANGUAGES

FIRST_SEED = 10_000  # held out: training starts at 2,000,000 (pool.py)
README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- figures: written by evaluate.py -->", "<!-- end of figures -->"
CONDITIONS = ("image", "blanked", "swapped")


@dataclass(frozen=True)
class Mean:
    """A mean with half the width of its 95 % confidence interval (normal, over independent scenes)."""

    value: float
    margin: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
        return cls(mean, 1.96 * math.sqrt(variance / len(values)))

    def percent(self) -> str:
        return f"{100 * self.value:.1f} ± {100 * self.margin:.1f}"

    def plain(self) -> str:
        return f"{self.value:.2f} ± {self.margin:.2f}"


@dataclass(frozen=True)
class Asked:
    """A question of scene number `index`."""

    index: int
    question: Question


@dataclass(frozen=True)
class Seer:
    """The model with what surrounds it: texts for prompts about pixels [N, 3, px, px]."""

    model: CogVLMForCausalLM
    tokenizer: PreTrainedTokenizerBase

    def say(
        self,
        pixels: torch.Tensor,
        prompts: Sequence[str],
        *,
        num_candidates: int = 1,
        temperature: float | None = None,
        max_new_tokens: int = 64,
        batch: int = 64,
    ) -> list[list[str]]:
        """num_candidates texts for each (picture, prompt); temperature None is greedy."""
        encoded = [self._encode(prompt) for prompt in prompts]
        order = sorted(range(len(prompts)), key=lambda index: len(encoded[index]))
        sampling: dict[str, Any] = (
            {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {}
        )
        num_image_tokens = self.model.config.vision_config.num_patches + 2
        texts: list[list[str]] = [[] for _ in prompts]
        for _, same_length in itertools.groupby(order, key=lambda index: len(encoded[index])):
            indices = list(same_length)
            for chosen in (indices[start : start + batch] for start in range(0, len(indices), batch)):
                ids = torch.tensor([encoded[index] for index in chosen])
                types = torch.zeros_like(ids)
                types[:, 1 : 1 + num_image_tokens] = 1
                tokens = self.model.generate(
                    input_ids=ids,
                    token_type_ids=types,
                    attention_mask=torch.ones_like(ids),
                    pixel_values=pixels[chosen],
                    num_return_sequences=num_candidates,
                    max_new_tokens=max_new_tokens,
                    **sampling,
                )
                said = self.tokenizer.batch_decode(tokens[:, ids.shape[1] :], skip_special_tokens=True)
                for row, index in enumerate(chosen):
                    texts[index] = said[row * num_candidates : (row + 1) * num_candidates]
        return texts

    def _encode(self, prompt: str) -> list[int]:
        config = self.model.config
        ids, _ = encode_prompt(
            self.tokenizer,
            prompt,
            bos_token_id=config.bos_token_id,
            pad_token_id=config.pad_token_id,
            num_image_tokens=config.vision_config.num_patches + 2,
        )
        return ids


def load(checkpoint: Path, *, cache: Path | None = None) -> Seer:
    """The checkpoint as a job would load it: converted, its weights as shipped, computed in float32."""
    prepared = prepare_model(checkpoint, tokenizer=DIRECTORY, version="base", cache_dir=cache)
    model = CogVLMForCausalLM.from_pretrained(prepared.path, dtype=torch.float32).eval()
    return Seer(model, AutoTokenizer.from_pretrained(DIRECTORY))


def pictures(scenes: Sequence[Scene], condition: str, *, image_size: int) -> torch.Tensor:
    """[N, 3, px, px]: the scenes' own pictures, grey ones, or each the picture of the next scene."""
    if condition == "blanked":
        drawn = [Image.new("RGB", (SIDE, SIDE), (128, 128, 128))] * len(scenes)
    else:
        drawn = [draw(one) for one in (scenes if condition == "image" else [*scenes[1:], scenes[0]])]
    return torch.stack([preprocess_image(image, image_size) for image in drawn])


def answer_all(seer: Seer, pixels: torch.Tensor, asked: Sequence[Asked]) -> list[bool]:
    """Whether each question is answered right, greedily."""
    said = seer.say(
        pixels[[one.index for one in asked]], [one.question.text for one in asked], max_new_tokens=8
    )
    return [
        check_answer(answer, one.question.answer).label == "true"
        for (answer,), one in zip(said, asked, strict=True)
    ]


def best_constant(asked: Sequence[Asked]) -> list[bool]:
    """Whether each question's answer is the commonest one of its kind here: what guessing well would give."""
    answers: dict[str, list[str]] = {}
    for one in asked:
        answers.setdefault(one.question.kind, []).append(one.question.answer)
    best = {kind: max(sorted(set(given)), key=given.count) for kind, given in answers.items()}
    return [one.question.answer == best[one.question.kind] for one in asked]


def captions(
    seer: Seer, pixels: torch.Tensor, scenes: Sequence[Scene], prompt: str, *, temperature: float
) -> list[list[Verdict]]:
    """The verdicts on 8 sampled captions of each scene."""
    said = seer.say(pixels, [prompt] * len(scenes), num_candidates=8, temperature=temperature)
    return [[check_caption(text, truth) for text in texts] for texts, truth in zip(said, scenes, strict=True)]


def _per_scene(asked: Sequence[Asked], right: Sequence[bool]) -> Mean:
    by_scene: dict[int, list[bool]] = {}
    for one, good in zip(asked, right, strict=True):
        by_scene.setdefault(one.index, []).append(good)
    return Mean.of([sum(goods) / len(goods) for goods in by_scene.values()])


def _share(verdicts: list[list[Verdict]], label: str) -> Mean:
    return Mean.of([sum(one.label == label for one in of_one) / len(of_one) for of_one in verdicts])


def _facts(verdicts: list[list[Verdict]]) -> Mean:
    """Single facts per true caption, over the scenes that have one."""
    counts = [[one.num_facts for one in of_one if one.label == "true"] for of_one in verdicts]
    return Mean.of([sum(of_one) / len(of_one) for of_one in counts if of_one] or [0.0])


def _distinct(verdicts: list[list[Verdict]]) -> Mean:
    return Mean.of([len({v.content for v in of_one if v.label == "true"}) for of_one in verdicts])


def table(seer: Seer, *, num_scenes: int, seed: int = 0) -> Iterator[str]:
    """The lines of the report, in Markdown."""
    torch.manual_seed(seed)
    scenes = [scene(FIRST_SEED + index) for index in range(num_scenes)]
    size = seer.model.config.vision_config.image_size
    pixels = {condition: pictures(scenes, condition, image_size=size) for condition in CONDITIONS}
    rng = random.Random(seed)
    asked = [Asked(i, question) for i, one in enumerate(scenes) for question in ask_each(one, rng)]
    yield f"Measured on {num_scenes} held-out scenes; ± is half a 95 % confidence interval over scenes."
    yield ""
    yield from _answer_lines(asked, {name: answer_all(seer, seen, asked) for name, seen in pixels.items()})
    yield ""
    yield "| captions, 8 a scene | true, % | false, % | unparsable, % | facts in a true one | distinct true |"
    yield "|---|---|---|---|---|---|"
    settings = [("image", "en", t) for t in (0.7, 0.8, 1.0)]
    settings += [("blanked", "en", 0.7), ("swapped", "en", 0.7), ("image", "zh", 0.7)]
    for condition, language, temperature in settings:
        prompt = LANGUAGES[language].prompts[0]
        verdicts = captions(seer, pixels[condition], scenes, prompt, temperature=temperature)
        shares = [_share(verdicts, label) for label in ("true", "false", "unparsable")]
        name = f"{condition}, temperature {temperature}" + ("" if language == ENGLISH.name else ", Chinese")
        cells = [
            *(share.percent() for share in shares),
            _facts(verdicts).plain(),
            _distinct(verdicts).plain(),
        ]
        yield f"| {name} | {' | '.join(cells)} |"


def _answer_lines(asked: Sequence[Asked], right: Mapping[str, Sequence[bool]]) -> Iterator[str]:
    columns = {**right, "constant": best_constant(asked)}
    yield "| short answers right, % | questions | with the image | blanked | swapped | best constant answer |"
    yield "|---|---|---|---|---|---|"
    cells = " | ".join(_per_scene(asked, column).percent() for column in columns.values())
    yield f"| **all** | {len(asked)} | {cells} |"
    for kind in ENGLISH.questions:
        chosen = [number for number, one in enumerate(asked) if one.question.kind == kind]
        means = [Mean.of([column[number] for number in chosen]) for column in columns.values()]
        yield f"| {kind} | {len(chosen)} | {' | '.join(mean.percent() for mean in means)} |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m jobs.demo.evaluate", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path(__file__).parent / "checkpoint")
    parser.add_argument("--num-scenes", type=int, default=500)
    parser.add_argument("--no-write", action="store_true", help="print only, leave README.md alone")
    given = parser.parse_args()
    lines = []
    for line in table(load(given.checkpoint), num_scenes=given.num_scenes):
        print(line, flush=True)
        lines.append(line)
    if not given.no_write:
        text = README.read_text()
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        README.write_text(before + "\n".join([BEGIN, *lines, END]) + after)


if __name__ == "__main__":
    main()
