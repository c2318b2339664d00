"""Scenes as a Parquet table; the command behind `python -m jobs.demo.scenes`.

Example: `python -m jobs.demo.scenes OUT.parquet --num-scenes 1000 --seed 5000 --language zh`.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.demo.grammar import ask, caption
from jobs.demo.scenes import Difficulty, draw, png, scene
from jobs.demo.words import LANGUAGES

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.binary()),
        ("prompt", pa.string()),
        ("scene", pa.string()),
        ("captions", pa.list_(pa.string())),
        ("questions", pa.list_(pa.string())),
        ("answers", pa.list_(pa.string())),
    ]
)


def scene_table(
    *,
    num_scenes: int,
    seed: int = 0,
    language: str = "en",
    num_texts: int = 5,
    difficulty: Difficulty | None = None,
) -> pa.Table:
    """One row per scene for the seeds from `seed` on: picture, ground truth, captions, questions, answers.

    Raises:
        ValueError: an unknown language, or no scenes asked for.
    """
    if language not in LANGUAGES:
        raise ValueError(f"unknown language {language!r}: expected one of {', '.join(LANGUAGES)}")
    if num_scenes < 1:
        raise ValueError(f"num_scenes is {num_scenes}, expected at least 1")
    words = LANGUAGES[language]
    rows = []
    for index in range(seed, seed + num_scenes):
        truth = scene(index, difficulty or Difficulty())
        rng = random.Random(index)
        asked = ask(truth, rng, count=num_texts, language=words)
        rows.append(
            {
                "id": f"scene-{index:06d}",
                "image": png(draw(truth)),
                "prompt": words.prompts[0],
                "scene": truth.to_json(),
                "captions": [caption(truth, rng, language=words).text for _ in range(num_texts)],
                "questions": [question.text for question in asked],
                "answers": [question.answer for question in asked],
            }
        )
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def write(table: pa.Table, path: Path, *, row_group_size: int) -> None:
    """Writes the table; small row groups, because a job's shards do not cross them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size, compression="zstd")


def main(arguments: list[str] | None = None) -> None:
    """The command line of scenes.py."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.demo.scenes",
        description="Draw scenes and write them as Parquet.",
        epilog="Example: python -m jobs.demo.scenes scenes.parquet --num-scenes 999 --seed 5000",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="Parquet file to write")
    parser.add_argument("--num-scenes", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first scene, one more for each next")
    parser.add_argument("--language", choices=sorted(LANGUAGES), default="en")
    parser.add_argument("--row-group-size", type=int, default=32)
    parser.add_argument("--min-shapes", type=int, default=1)
    parser.add_argument("--max-shapes", type=int, default=4)
    given = parser.parse_args(arguments)
    try:
        table = scene_table(
            num_scenes=given.num_scenes,
            seed=given.seed,
            language=given.language,
            difficulty=Difficulty(min_shapes=given.min_shapes, max_shapes=given.max_shapes),
        )
    except ValueError as error:
        parser.error(str(error))
    write(table, given.out, row_group_size=given.row_group_size)
    print(f"{given.out}: {table.num_rows} scenes, {given.out.stat().st_size} bytes")
