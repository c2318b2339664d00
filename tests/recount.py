"""A sweep's table against its parts: the same numbers counted again, with nothing of cogbatch.

    python -m tests.recount runs/demo-sweep jobs.demo.check:check

The checker is the user's. Texts are taken to be English, or Chinese, of which every character is a word.
The front is counted from the table's own means. Prints how many numbers agree, and the columns that nothing
here counts: self-BLEU, and the ends of intervals, which are draws of the table's own.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from math import comb
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow.dataset
import pyarrow.parquet as pq

Words = list[str]
Point = dict[str, Any]
LOWER_IS_BETTER = ("self_bleu", "seconds_per_item")


def recount(run: Path, check: Callable[..., Any]) -> dict[str, float]:
    """The averages of one point, over its rows without error."""
    found: dict[str, list[float]] = {}
    rows = pyarrow.dataset.dataset(run / "parts").to_table().to_pylist()
    for row in (row for row in rows if row["error"] is None):
        for name, value in _item(row, [check(one["text"], row) for one in row["candidates"]]).items():
            found.setdefault(name, []).append(value)
    counts = {"items": len(rows), "errors": sum(row["error"] is not None for row in rows)}
    counts |= {f"{name}_items": len(values) for name, values in found.items()}
    total_s = sum(row["seconds"] for row in rows)
    return {**counts, "engine_seconds": total_s, **{name: fmean(values) for name, values in found.items()}}


def _item(row: dict[str, Any], verdicts: list[Any]) -> dict[str, float]:
    given, k = row["candidates"], len(row["candidates"])
    texts = [" ".join(one["text"].lower().split()).rstrip(".,;:!? ") for one in given]
    words = [re.findall(r"[\u4e00-\u9fff]|[a-z0-9'-]+", text) for text in texts]
    right = sum(verdict.correct for verdict in verdicts)
    item: dict[str, float] = {
        "num_candidates": k,
        "unique_rate": len(set(texts)) / k,
        "logprob_per_token": fmean(one["cumulative_logprob"] / one["num_tokens"] for one in given),
        "num_tokens": fmean(one["num_tokens"] for one in given),
        "vendi_score": vendi_score(words),
        "correct": right / k,
        "score": fmean(verdict.score for verdict in verdicts),
        "best_score": max(verdict.score for verdict in verdicts),
        "distinct_correct": len({verdict.content for verdict in verdicts if verdict.correct}),
        "seconds_per_item": row["seconds"],
    }
    if k > 1:
        item["rouge_l_distance"] = fmean(1 - rouge_l(*pair) for pair in combinations(words, 2))
    for n in (1, 2, 3):
        grams = sum((ngrams(text, n) for text in words), Counter())
        if grams:
            item[f"distinct_{n}"] = len(grams) / grams.total()
    return item | {f"pass@{size}": 1 - comb(k - right, size) / comb(k, size) for size in range(1, k + 1)}


def ngrams(words: Words, n: int) -> Counter[tuple[str, ...]]:
    """How often each run of n neighbours comes."""
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


def vendi_score(texts: list[Words]) -> float:
    """exp of the entropy of the eigenvalues of K / k, K the cosines of n-gram counts, mean over n = 1 to 4.

    Texts too short for n are alike where they are the same.
    """
    kernel = np.zeros((len(texts), len(texts)))
    for n in (1, 2, 3, 4):
        grams = [ngrams(text, n) for text in texts]
        for row, one in enumerate(grams):
            for column, other in enumerate(grams):
                lengths = np.sqrt(sum(x * x for x in one.values()) * sum(x * x for x in other.values()))
                common = sum(number * other[gram] for gram, number in one.items())
                is_same = not one and texts[row] == texts[column]
                kernel[row, column] += (common / lengths if lengths else is_same) / 4
    shares = np.linalg.eigvalsh(kernel / len(texts))
    return float(np.exp(-sum(share * np.log(share) for share in shares if share > 0)))


def rouge_l(one: Words, other: Words) -> float:
    """2 LCS / (a + b), LCS the longest common subsequence of a and b words."""
    above = [0] * (len(other) + 1)
    for word in one:
        row = [0]
        for place, theirs in enumerate(other):
            row.append(above[place] + 1 if word == theirs else max(above[place + 1], row[place]))
        above = row
    return 2 * above[-1] / (len(one) + len(other)) if one or other else 1.0


def front(points: list[Point], axes: tuple[str, str]) -> list[bool]:
    """For each point whether no other is at least as good in both axes and better in one."""
    signs = [-1 if axis in LOWER_IS_BETTER else 1 for axis in axes]
    measured = [all(point[axis] is not None for axis in axes) for point in points]
    x, y = ([sign * (point[axis] or 0) for point in points] for sign, axis in zip(signs, axes, strict=True))
    others = [place for place, is_there in enumerate(measured) if is_there]
    return [
        is_there and not any(x[i] >= a and y[i] >= b and (x[i], y[i]) != (a, b) for i in others)
        for a, b, is_there in zip(x, y, measured, strict=True)
    ]


def disagreements(sweep: Path, check: Callable[..., Any]) -> tuple[int, list[str], list[str]]:
    """How many numbers of the table were compared, those that differ, and the columns never compared."""
    compared, wrong, counted = 0, list[str](), set[str]()
    said = json.loads((sweep / "sweep.json").read_text())
    axes = said["quality"] or "correct", said["diversity"] or "vendi_score"
    points = pq.read_table(sweep / "table.parquet").to_pylist()
    for point, on_front in zip(points, front(points, axes), strict=True):
        expected: Point = {"on_front": on_front}
        if not point["failure"]:
            expected |= recount(sweep / "points" / point["name"], check)
        for name, value in expected.items():
            if name.startswith("pass@") and point["no_pass_at_k"]:
                continue
            compared += 1
            counted.add(name)
            if point[name] is None or abs(point[name] - value) > 1e-9 * max(1, abs(value)):
                wrong.append(f"{point['name']} {name}: the table has {point[name]}, the parts {value}")
    words = {"name", "path", "no_pass_at_k", "failure"}
    settings = {name for name in points[0] if "." in name}
    return compared, wrong, [name for name in points[0] if name not in counted | words | settings]


if __name__ == "__main__":
    module, _, function = sys.argv[2].partition(":")
    checker = getattr(importlib.import_module(module), function)
    number, differ, uncounted = disagreements(Path(sys.argv[1]), checker)
    print(*differ, f"{number - len(differ)} of {number} numbers agree", sep="\n")
    others = [name for name in uncounted if not name.endswith(("_low", "_high"))]
    print("not counted again: the ends of intervals", *others, sep=", ")
    sys.exit(bool(differ))
