"""No image on both sides, the same side for ever, and about the share that was asked for."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from exported import encoded, export, noise, records
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import MakeRun, write_run

from cogbatch.eval.export.split import side

ENCODINGS = (
    partial(encoded, kind="PNG"),
    partial(encoded, kind="BMP"),
    partial(encoded, kind="WEBP", lossless=True),
)


@given(st.text(max_size=20), st.floats(0, 0.99), st.floats(0, 0.99), st.integers())
def test_a_side_is_a_function_of_the_group_and_grows_with_the_share(
    group: str, one: float, other: float, seed: int
) -> None:
    small, large = sorted((one, other))
    assert side(group, validation=small, seed=seed) == side(group, validation=small, seed=seed)
    if side(group, validation=small, seed=seed) == "validation":
        assert side(group, validation=large, seed=seed) == "validation"
    assert side(group, validation=0, seed=seed) == "train"


def test_about_the_share_that_was_asked_for_goes_to_validation() -> None:
    """Binomial, 20,000 groups at 5 %: 1,000 expected, standard deviation 31. Fixed seed."""
    count = sum(side(str(n), validation=0.05) == "validation" for n in range(20_000))
    assert 850 < count < 1150
    other = [side(str(n), validation=0.5, seed=1) for n in range(1000)]
    assert other != [side(str(n), validation=0.5, seed=2) for n in range(1000)]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=12),
    st.integers(0, 3),
    st.sampled_from(["perceptual", "pixels"]),
)
@settings(max_examples=12, deadline=None)
def test_no_image_is_on_both_sides_whatever_its_ids_paths_and_encodings(
    rows: list[tuple[int, int]], seed: int, split_by: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(
            Path(folder),
            [[f"text {number}"] for number in range(len(rows))],
            images=[ENCODINGS[encoding](noise(image)) for image, encoding in rows],
        )
        done = export(run, "llava", validation=0.5, seed=seed, split_by=split_by)
        names = [
            {record["image"] for record in records(done, split)}
            if split in done.counts["examples"]
            else set()
            for split in ("train", "validation")
        ]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == len({image for image, _ in rows})


def test_an_image_keeps_its_side_when_rows_come_and_go(make_run: MakeRun, tmp_path: Path) -> None:
    images = [encoded(noise(number)) for number in range(30)]
    few = write_run(tmp_path / "few", [["a"]] * 10, images=images[20:])
    many = make_run([["a"]] * 30, images=images)
    sides = []
    for run in (few, many):
        done = export(run, "llava", validation=0.4)
        sides.append({r["image"]: s for s in ("train", "validation") for r in records(done, s)})
    assert sides[0].items() <= sides[1].items()
    assert set(sides[0].values()) == {"train", "validation"}


def test_prompts_of_one_image_stay_together(make_run: MakeRun) -> None:
    run = make_run([[f"a {n}"] for n in range(40)], images=[encoded(noise(n // 4)) for n in range(40)])
    done = export(run, "llava", validation=0.5)
    for split in ("train", "validation"):
        found = records(done, split)
        assert len(found) == 4 * len({record["image"] for record in found})


def test_a_copy_that_was_encoded_anew_is_on_the_same_side(make_run: MakeRun) -> None:
    originals = [noise(n, size=(9, 8)).resize((180, 160), 0) for n in range(16)]
    copies = [encoded(image.resize((90, 80), 4), "JPEG", quality=90) for image in originals]
    run = make_run([["a"]] * 32, images=[encoded(image) for image in originals] + copies)
    done = export(run, "llava", validation=0.5)
    rows = {
        split: {record["id"].split("-")[2] for record in records(done, split)}
        for split in done.counts["examples"]
    }
    assert all((str(n) in rows["train"]) == (str(n + 16) in rows["train"]) for n in range(16))
    assert len(rows) == 2


def test_text_only_items_are_split_by_their_prompt(make_run: MakeRun) -> None:
    prompts = [f"Prompt {n % 10}" for n in range(30)]
    run = make_run([[f"a {n}"] for n in range(30)], prompts=prompts, images=[None] * 30)
    done = export(run, "llava", validation=0.5)
    asked = [
        {r["conversations"][0]["value"] for r in records(done, split)} for split in ("train", "validation")
    ]
    assert not asked[0] & asked[1]
    assert len(asked[0] | asked[1]) == 10
