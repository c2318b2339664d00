"""Measures the demo model with quantized weights: `python -m jobs.demo.quantization`, a few minutes.

Writes the table in docs/quantization.md: what is true of the captions and answers about held-out scenes, as
evaluate.py measures it, beside the bytes of the weights. All settings see the same scenes.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from cogbatch.checkpoint.directory import prepare_model
from cogbatch.engine.loading import load_model
from cogbatch.engine.memory import weight_bytes
from cogbatch.model.directory import DTYPES, load_tokenizer
from cogbatch.types import Dtype, Quantization
from jobs.demo.evaluate import FIRST_SEED, Asked, Mean, Seer, answer_all, captions, pictures
from jobs.demo.grammar import ask_each
from jobs.demo.scenes import Scene, scene
from jobs.demo.vocabulary import DIRECTORY
from jobs.demo.words import ENGLISH

DOCS = Path(__file__).parents[2] / "docs" / "quantization.md"
BEGIN, END = "<!-- figures: written by jobs/demo/quantization.py -->", "<!-- end of figures -->"
TEMPERATURE = 0.8  # job.yaml's


@dataclass(frozen=True)
class Setting:
    """How the weights are held."""

    dtype: Dtype
    quantization: Quantization | None = None

    @property
    def name(self) -> str:
        if self.quantization is None:
            return self.dtype
        return f"{self.dtype}, {self.quantization.type} of {', '.join(self.quantization.parts)}"


@dataclass(frozen=True)
class Measured:
    """Scene by scene: shares of true captions and of right answers, different true captions."""

    megabytes: float
    true: list[float]
    distinct: list[float]
    right: list[float]


SETTINGS = (
    Setting("float32"),
    Setting("bfloat16"),
    Setting("float32", Quantization("int8")),
    Setting("bfloat16", Quantization("int8")),
    Setting("float32", Quantization("nf4")),
    Setting("bfloat16", Quantization("nf4")),
    Setting("float32", Quantization("nf4", ("language",))),
    Setting("float32", Quantization("nf4", ("vision",))),
    Setting("float32", Quantization("nf4", ("vit",))),
)


def measure(model_dir: Path, setting: Setting, scenes: list[Scene]) -> Measured:
    """One setting on all scenes."""
    model = load_model(
        model_dir, dtype=setting.dtype, device=torch.device("cpu"), quantization=setting.quantization
    )
    seer = Seer(model, load_tokenizer(DIRECTORY))
    torch.manual_seed(0)
    pixels = pictures(scenes, "image", image_size=model.config.vision_config.image_size)
    verdicts = captions(seer, pixels, scenes, ENGLISH.prompts[0], temperature=TEMPERATURE)
    true = [[one for one in of_one if one.label == "true"] for of_one in verdicts]
    rng = random.Random(0)
    asked = [Asked(i, question) for i, one in enumerate(scenes) for question in ask_each(one, rng)]
    goods: list[list[bool]] = [[] for _ in scenes]
    for one, good in zip(asked, answer_all(seer, pixels, asked), strict=True):
        goods[one.index].append(good)
    total = weight_bytes(model.config, DTYPES[setting.dtype], quantization=setting.quantization)
    return Measured(
        megabytes=total / 1e6,
        true=[len(good) / len(of_one) for good, of_one in zip(true, verdicts, strict=True)],
        distinct=[len({one.content for one in good}) for good in true],
        right=[sum(good) / len(good) for good in goods if good],
    )


def row(setting: Setting, measured: Measured, full: Measured) -> str:
    """A line of the table, compared with the model in full scene by scene."""
    cells = [setting.name, f"{measured.megabytes:.1f}"]
    for mine, theirs in ((measured.true, full.true), (measured.right, full.right)):
        apart = Mean.of([a - b for a, b in zip(mine, theirs, strict=True)]).percent()
        cells += [Mean.of(mine).percent(), "" if measured is full else apart]
    return f"| {' | '.join([*cells, Mean.of(measured.distinct).plain()])} |"


def table(model_dir: Path, *, num_scenes: int) -> Iterator[str]:
    """The lines of the report, in Markdown."""
    scenes = [scene(FIRST_SEED + index) for index in range(num_scenes)]
    yield (
        f"Measured on {num_scenes} held-out scenes, 8 captions each at temperature {TEMPERATURE}; ± is half a"
        " 95 % confidence interval over scenes. Differences: from float32, scene by scene. MB: all weights."
    )
    yield ""
    yield (
        "| weights | MB | captions true, % | difference | answers right, % | difference |"
        " distinct true captions |"
    )
    yield "|---|---|---|---|---|---|---|"
    full: Measured | None = None
    for setting in SETTINGS:
        measured = measure(model_dir, setting, scenes)
        full = full or measured
        yield row(setting, measured, full)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m jobs.demo.quantization", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path(__file__).parent / "checkpoint")
    parser.add_argument("--num-scenes", type=int, default=300)
    parser.add_argument("--no-write", action="store_true", help="print only, leave the docs alone")
    given = parser.parse_args()
    prepared = prepare_model(given.checkpoint, tokenizer=DIRECTORY, version="base")
    lines = []
    for line in table(prepared.path, num_scenes=given.num_scenes):
        print(line, flush=True)
        lines.append(line)
    if not given.no_write:
        text = DOCS.read_text(encoding="utf-8")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        DOCS.write_text(before + "\n".join([BEGIN, *lines, END]) + after, encoding="utf-8")


if __name__ == "__main__":
    main()
