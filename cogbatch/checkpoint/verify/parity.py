"""Two files of probe results, compared: logits, first choices, and tokens chosen greedily. Numbers only."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open


@dataclass(frozen=True)
class Agreement:
    """max_difference, mean_difference: of logits, absolute; NaN where either side has one.

    top1: share of places with the same first choice. greedy: how many of num_greedy tokens both sides choose,
    up to the first that differs.
    """

    max_difference: float
    mean_difference: float
    top1: float
    num_places: int
    greedy: int
    num_greedy: int

    @property
    def text(self) -> str:
        return (
            f"logits differ by max {self.max_difference:.1e}, mean {self.mean_difference:.1e}; "
            f"top-1 {self.top1:.2%} of {self.num_places}, greedy {self.greedy}/{self.num_greedy} tokens"
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(ours: Path, theirs: Path) -> dict[str, Agreement]:
    """By probe, and under "all" together.

    Both files hold {probe}.logits [K, V]. theirs holds {probe}.next: its choice behind the probe and behind
    each token of one common continuation. ours holds that continuation ({probe}.greedy), or {probe}.next too.
    As long as the choices are the continuation, both sides alone would have written the same.
    """
    with safe_open(ours, framework="pt") as a, safe_open(theirs, framework="pt") as b:
        names = sorted({key.split(".")[0] for key in b.keys()})  # noqa: SIM118 - not a dict
        found = {name: _compare(name, a, b) for name in names}
    return {**found, "all": _together(list(found.values()))}


def _compare(name: str, ours: Any, theirs: Any) -> Agreement:
    a, b = ours.get_tensor(f"{name}.logits").float(), theirs.get_tensor(f"{name}.logits").float()
    difference = (a - b).abs()
    key = f"{name}.greedy" if f"{name}.greedy" in ours.keys() else f"{name}.next"  # noqa: SIM118
    same = (ours.get_tensor(key) == theirs.get_tensor(f"{name}.next")).long()
    return Agreement(
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean(dtype=torch.float64)),
        top1=float((a.argmax(-1) == b.argmax(-1)).double().mean()),
        num_places=a.shape[0],
        greedy=int(same.cumprod(0).sum()),
        num_greedy=same.shape[0],
    )


def _together(parts: list[Agreement]) -> Agreement:
    """Means by place: every probe has the same number of logits at each."""
    places = sum(part.num_places for part in parts)

    def mean(values: list[float]) -> float:
        return sum(v * part.num_places for v, part in zip(values, parts, strict=True)) / places

    return Agreement(
        # torch.max, unlike max(), lets a NaN through.
        max_difference=float(
            torch.tensor([part.max_difference for part in parts], dtype=torch.float64).max()
        ),
        mean_difference=mean([part.mean_difference for part in parts]),
        top1=mean([part.top1 for part in parts]),
        num_places=places,
        greedy=sum(part.greedy for part in parts),
        num_greedy=sum(part.num_greedy for part in parts),
    )
