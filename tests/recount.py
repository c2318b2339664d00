"""A sweep's table against its parts: the same numbers counted again, with nothing of cogbatch.

    python -m tests.recount runs/demo-sweep jobs.demo.check:check

The checker is the user's. Texts are taken to be English, or Chinese, of which every character is a word.
Prints how many numbers agree.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from math import comb
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.dataset
import pyarrow.parquet as pq


def recount(run: Path, check: Callable[..., Any]) -> dict[str, float]:
    """The averages of one point, over its rows without error."""
    found: dict[str, list[float]] = {}
    rows = pyarrow.dataset.dataset(run / "parts").to_table().to_pylist()
    for row in (row for row in rows if row["error"] is None):
        given, k = row["candidates"], len(row["candidates"])
        texts = [" ".join(one["text"].lower().split()).rstrip(".,;:!? ") for one in given]
        right = sum(check(one["text"], row).correct for one in given)
        item = {
            "num_candidates": k,
            "unique_rate": len(set(texts)) / k,
            "logprob_per_token": fmean(one["cumulative_logprob"] / one["num_tokens"] for one in given),
            "num_tokens": fmean(one["num_tokens"] for one in given),
            "correct": right / k,
            "seconds_per_item": row["seconds"],
        }
        for n in (1, 2, 3):
            words = [re.findall(r"[\u4e00-\u9fff]|[a-z0-9'-]+", text) for text in texts]
            runs = [tuple(text[start : start + n]) for text in words for start in range(len(text) - n + 1)]
            item[f"distinct_{n}"] = len(set(runs)) / len(runs)
        for size in range(1, k + 1):
            item[f"pass@{size}"] = 1 - comb(k - right, size) / comb(k, size)
        for name, value in item.items():
            found.setdefault(name, []).append(value)
    errors = sum(row["error"] is not None for row in rows)
    total_s = sum(row["seconds"] for row in rows)
    averages = {name: fmean(values) for name, values in found.items()}
    return {"items": len(rows), "errors": errors, "engine_seconds": total_s, **averages}


def disagreements(sweep: Path, check: Callable[..., Any]) -> tuple[int, list[str]]:
    """How many numbers of the table were compared, and those that differ."""
    compared, wrong = 0, []
    for point in pq.read_table(sweep / "table.parquet").to_pylist():
        for name, value in recount(sweep / "points" / point["name"], check).items():
            if name.startswith("pass@") and point["no_pass_at_k"]:
                continue
            compared += 1
            if point[name] is None or abs(point[name] - value) > 1e-9 * max(1, abs(value)):
                wrong.append(f"{point['name']} {name}: the table has {point[name]}, the parts {value}")
    return compared, wrong


if __name__ == "__main__":
    module, _, function = sys.argv[2].partition(":")
    number, differ = disagreements(Path(sys.argv[1]), getattr(importlib.import_module(module), function))
    print(*differ, f"{number - len(differ)} of {number} numbers agree", sep="\n")
    sys.exit(bool(differ))
