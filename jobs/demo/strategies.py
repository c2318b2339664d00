"""Compares strategies on held-out scenes: `python -m jobs.demo.strategies`, about half an hour on two cores.

Writes jobs/demo/strategies.md: for every setting how many of its captions are true, and how many different
true things it says of a scene. All settings see the same scenes, so that differences are paired.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cogbatch import Engine, GenerationParams, GenerationRequest
from cogbatch.checkpoint.directory import prepare_model
from cogbatch.decoding.presets import PRESETS, preset
from cogbatch.eval.metrics import unique_rate, vendi_score
from cogbatch.text import normalise
from cogbatch.types import Candidate
from jobs.demo.check import check_caption
from jobs.demo.evaluate import FIRST_SEED, Mean
from jobs.demo.scenes import Scene, draw, scene
from jobs.demo.vocabulary import DIRECTORY
from jobs.demo.words import ENGLISH

OUT = Path(__file__).with_suffix(".md")
CHECKPOINT = Path(__file__).parent / "checkpoint"
TEMPERATURES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2)
BUILDING = "preset training-data"


@dataclass(frozen=True)
class Outcome:
    """What one setting gave for one scene.

    true: share of the delivered captions. facts: per true caption, NaN without one. contents: different sets
    of true facts; wordings: different true texts. unique, vendi: of all delivered texts.
    """

    delivered: float
    true: float
    facts: float
    contents: float
    wordings: float
    unique: float
    vendi: float


@dataclass(frozen=True)
class Measured:
    """The outcomes of a setting, scene by scene, and what a scene took."""

    outcomes: Sequence[Outcome]
    seconds: float

    def mean(self, name: str) -> Mean:
        values = [getattr(outcome, name) for outcome in self.outcomes]
        return Mean.of([value for value in values if not math.isnan(value)] or [math.nan])


def settings(k: int) -> dict[str, GenerationParams]:
    """Every setting that is compared, by name."""
    common: dict[str, Any] = {"num_candidates": k, "max_new_tokens": 64}
    pools = [("top", 1.0), ("mbr", 1.0), ("mmr", 1.0), ("k-medoids", 1.0), ("dpp", 0.7), ("dpp", 1.0)]
    groups = {"strategy": "diverse-beam", "num_beam_groups": 4, "diversity_penalty": 1.0}
    table: dict[str, dict[str, Any]] = {
        **{f"sample, T {t}": {"temperature": t} for t in TEMPERATURES},
        "sample, T 1.0, top-p 0.9": {"top_p": 0.9},
        "arithmetic, T 0.7": {"strategy": "arithmetic", "temperature": 0.7},
        "arithmetic, T 1.0": {"strategy": "arithmetic"},
        "beam": {"strategy": "beam"},
        "diverse-beam, 4 groups, penalty 1": groups,
        "stochastic-beam, T 0.7": {"strategy": "stochastic-beam", "temperature": 0.7},
        "stochastic-beam, T 1.0": {"strategy": "stochastic-beam"},
        "branch, T 0.7": {"strategy": "branch", "temperature": 0.7},
        **{f"{name} of {4 * k}, T {t}": {"selector": name, "temperature": t} for name, t in pools},
        f"dpp of {4 * k} by support, T 0.7": {"selector": "dpp", "quality": "support", "temperature": 0.7},
        f"mmr of {4 * k} by support, T 1.0": {"selector": "mmr", "quality": "support"},
        f"dpp of {8 * k} by support, T 1.0": {"selector": "dpp", "quality": "support", "pool_size": 8 * k},
    }
    named = {name: GenerationParams(**{**common, **values}) for name, values in table.items()}
    return named | {f"preset {name}": preset(name, **common) for name in PRESETS}


def measure(engine: Engine, scenes: Sequence[Scene], params: GenerationParams) -> Measured:
    """Asks for captions of every scene."""
    requests = [GenerationRequest(str(i), draw(one), ENGLISH.prompts[0]) for i, one in enumerate(scenes)]
    started = time.perf_counter()
    outputs = {output.id: output.candidates for output in engine.generate(requests, params)}
    seconds = (time.perf_counter() - started) / len(scenes)
    return Measured([outcome(outputs[str(i)], one) for i, one in enumerate(scenes)], seconds)


def outcome(candidates: Sequence[Candidate], truth: Scene) -> Outcome:
    """How the candidates of a scene are judged."""
    texts = [candidate.text for candidate in candidates]
    verdicts = [check_caption(text, truth) for text in texts]
    true = [(text, one) for text, one in zip(texts, verdicts, strict=True) if one.label == "true"]
    return Outcome(
        delivered=len(texts),
        true=len(true) / len(texts),
        facts=sum(one.num_facts for _, one in true) / len(true) if true else math.nan,
        contents=len({one.content for _, one in true}),
        wordings=len({normalise(text) for text, _ in true}),
        unique=unique_rate(texts) or math.nan,
        vendi=vendi_score(texts) or math.nan,
    )


def same_truth(measured: Mapping[str, Measured], share: float) -> str:
    """The temperature of `sample` with the nearest share of true captions; the hottest of equals."""
    return min(
        reversed([f"sample, T {t}" for t in TEMPERATURES]),
        key=lambda name: round(abs(measured[name].mean("true").value - share), 3),
    )


def ratio(measured: Measured, other: Measured) -> tuple[float, float, float]:
    """Distinct true captions per scene over the other's: (ratio, low, high), 95 % bootstrap over scenes."""
    mine = torch.tensor([one.contents for one in measured.outcomes])
    theirs = torch.tensor([one.contents for one in other.outcomes])
    draws = torch.randint(len(mine), (2000, len(mine)), generator=torch.Generator().manual_seed(0))
    ratios = (mine[draws].sum(1) / theirs[draws].sum(1)).sort().values
    return float(mine.sum() / theirs.sum()), float(ratios[50]), float(ratios[1949])


def report(measured: Mapping[str, Measured], *, num_scenes: int, k: int) -> Iterator[str]:
    """The page, line by line, in Markdown."""
    yield "# Strategies compared on the demo"
    yield ""
    yield "Written by `python -m jobs.demo.strategies`; do not edit."
    yield ""
    yield (
        f"{num_scenes} held-out scenes, k = {k}, English captions, the same scenes for every setting. "
        "± is half a 95 % confidence interval over scenes. *true*: share of delivered captions that the "
        "checker finds true. *contents*: different sets of true facts per scene; *wordings*: different true "
        "texts. *unique*, *Vendi*: of all delivered texts. Seconds are of one run on two busy cores: "
        "compare, do not quote."
    )
    yield ""
    yield "| setting | delivered | true, % | facts | contents | wordings | unique, % | Vendi | s/item |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, one in measured.items():
        cells = [
            f"{one.mean('delivered').value:.2f}",
            one.mean("true").percent(),
            one.mean("facts").plain(),
            f"**{one.mean('contents').plain()}**",
            one.mean("wordings").plain(),
            f"{100 * one.mean('unique').value:.1f}",
            one.mean("vendi").plain(),
            f"{one.seconds:.3f}",
        ]
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""
    yield "## Claims"
    yield ""
    yield from _claims(measured, k=k)


def _claims(measured: Mapping[str, Measured], *, k: int) -> Iterator[str]:
    building = measured[BUILDING]
    share = building.mean("true").value
    base = same_truth(measured, share)
    value, low, high = ratio(building, measured[base])
    verdict = "reached" if low >= 1.5 else "reached by the mean only" if value >= 1.5 else "not reached"
    yield (
        f"- `training-data` against `sample` with the nearest share of true captions "
        f"({100 * share:.1f} % against {measured[base].mean('true').percent()} % of *{base}*): "
        f"**{value:.2f} times** as many distinct true captions per scene ({low:.2f} to {high:.2f}). "
        f"The aim was 1.5: {verdict}."
    )
    most = k / measured[base].mean("contents").value
    yield (
        f"  - {most:.2f} times is all that {k} captions can reach there, each of them true and different "
        f"from the others in content: `sample` already says many different true things about these scenes."
    )
    yield (
        f"  - The price: {building.mean('facts').plain()} facts in a true caption, against "
        f"{measured[base].mean('facts').plain()}. "
        "Short captions hold fewer rare parts, so `support` prefers them."
    )
    for name in (name for name in measured if name.startswith("sample, T")):
        value, low, high = ratio(building, measured[name])
        yield (
            f"  - against *{name}* (true {measured[name].mean('true').percent()} %): "
            f"{value:.2f} times ({low:.2f} to {high:.2f})"
        )
    beams = measured["beam"].mean("vendi").value
    lower = [name for name, one in measured.items() if one.mean("vendi").value < beams]
    yield f"- Settings with a lower Vendi score than `beam`: {', '.join(lower) or 'none'}."
    fewer = [
        name
        for name, one in measured.items()
        if one.mean("contents").value < measured["beam"].mean("contents").value
    ]
    yield f"- Settings with fewer distinct true contents than `beam`: {', '.join(fewer) or 'none'}."


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m jobs.demo.strategies", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--num-scenes", type=int, default=300)
    parser.add_argument("--only", nargs="*", help="settings whose name holds one of these texts; prints only")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    prepared = prepare_model(given.checkpoint, tokenizer=DIRECTORY, version="base")
    engine = Engine.from_pretrained(prepared.path, dtype="float32")
    scenes = [scene(FIRST_SEED + index) for index in range(given.num_scenes)]
    measured = {}
    for name, params in settings(8).items():
        if given.only and not any(part in name for part in given.only):
            continue
        measured[name] = one = measure(engine, scenes, params)
        contents = one.mean("contents").plain()
        print(
            f"{name}: true {one.mean('true').percent()} %, contents {contents}, {one.seconds:.3f} s",
            flush=True,
        )
    if not given.only:
        lines = report(measured, num_scenes=given.num_scenes, k=8)
        given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
