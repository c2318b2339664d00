"""Laws of the sweep spec: every combination is a point, names are safe, and every mistake is said at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cogbatch.batch.sweep_spec import MAX_NAME, NAME, Sweep, load_sweep, parse_sweep
from cogbatch.errors import JobError

JOB: dict[str, Any] = {
    "model": {"checkpoint": "m"},
    "input": {"path": "data.jsonl", "columns": ["scene"]},
    "generation": {"num_candidates": 4, "temperature": 0.7},
    "output": {"path": "elsewhere"},
}


def make(**keys: Any) -> Sweep:
    tree = {"name": "s", "job": JOB, "output": {"path": "runs/s"}, **keys}
    return parse_sweep({key: value for key, value in tree.items() if value is not None})


def refusal(**keys: Any) -> str:
    with pytest.raises(JobError) as err:
        make(**keys)
    return str(err.value)


def test_a_grid_is_every_combination_with_the_last_key_running_fastest() -> None:
    sweep = make(grid={"generation.temperature": [0.5, 1.0], "generation.seed": [1, 2, 3]})
    found = [(p.spec.generation.temperature, p.spec.generation.seed) for p in sweep.points]
    assert found == [(0.5, 1), (0.5, 2), (0.5, 3), (1.0, 1), (1.0, 2), (1.0, 3)]
    assert sweep.points[1].name == "temperature-0.5_seed-2"
    assert sweep.points[1].overrides == {"generation.temperature": 0.5, "generation.seed": 2}


def test_what_is_not_overridden_is_the_jobs_and_every_point_has_a_folder_of_its_own() -> None:
    sweep = make(grid={"generation.seed": [1]}, set={"generation.num_candidates": 2, "input.limit": 9})
    (point,) = sweep.points
    assert (point.spec.generation.num_candidates, point.spec.input.limit) == (2, 9)
    assert point.spec.generation.temperature == 0.7
    assert (point.spec.name, point.spec.output.path) == ("s/seed-1", "runs/s/points/seed-1")


def test_listed_points_follow_the_grid_and_settings_say_what_all_of_them_are() -> None:
    sweep = make(
        grid={"generation.seed": [1]},
        points=[{"name": "cold", "generation.temperature": 0.1}, {"model.quantization": "int8"}],
    )
    assert [point.name for point in sweep.points] == ["seed-1", "cold", "quantization-int8"]
    keys = ("generation.seed", "generation.temperature", "model.quantization")
    assert [tuple(point.settings[key] for key in keys) for point in sweep.points] == [
        (1, 0.7, None),
        (0, 0.1, None),
        (0, 0.7, "int8"),
    ]


def test_a_preset_can_be_swept() -> None:
    sweep = make(
        grid={"generation.preset": ["training-data", "evaluation"]}, set={"generation.temperature": 1}
    )
    assert len({str(point.spec.generation) for point in sweep.points}) == 2
    assert [point.settings["generation.preset"] for point in sweep.points] == ["training-data", "evaluation"]


@pytest.mark.parametrize(
    "value", ["../../etc", "a/b c", "日本", "x" * 300, "-rf", ".", "", "C:\\x\ny", {"a": [1]}]
)
def test_derived_names_are_safe_bounded_and_unique(value: Any) -> None:
    sweep = make(grid={"input.prompt": ["Describe.", value if isinstance(value, str) else str(value)]})
    names = [point.name for point in sweep.points]
    assert len({name.casefold() for name in names}) == 2
    assert all(NAME.fullmatch(name) and len(name) <= MAX_NAME for name in names)


def test_values_that_look_alike_in_a_name_are_told_apart() -> None:
    sweep = make(grid={"input.prompt": ["a b", "a/b", "A b"]})
    names = [point.name for point in sweep.points]
    assert len({name.casefold() for name in names}) == 3
    assert all(name.casefold().startswith("prompt-a-b-") for name in names)


def test_secrets_of_addresses_are_in_no_name_and_no_setting() -> None:
    sweep = make(grid={"input.path": ["s3://key:hidden@bucket/a", "s3://bucket/b?token=hidden"]})
    assert sweep.points[0].spec.input.path == "s3://key:hidden@bucket/a"
    shown = [(point.name, point.settings, point.overrides) for point in sweep.points]
    assert "hidden" not in str(shown)


def test_a_column_of_references_is_carried_by_itself() -> None:
    sweep = make(grid={"generation.seed": [1]}, judge={"references": "captions", "metric": "cider"})
    assert sweep.points[0].spec.input.columns == ("scene", "captions")


def test_command_line_keys_are_the_sweeps_own_or_those_of_all_jobs(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    tree = {"job": JOB, "grid": {"generation.seed": [1, 2]}, "output": {"path": "a"}}
    path.write_text(yaml.safe_dump(tree))
    given = ["output.path=b", "generation.top_p=0.5", "judge.checker=m:f", "output.shard_size=3"]
    sweep = load_sweep(path, overrides=given)
    assert sweep.path == "b"
    assert sweep.judge is not None
    assert {(p.spec.generation.top_p, p.spec.output.shard_size) for p in sweep.points} == {(0.5, 3)}


def test_the_job_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))
    sweep = make(job=str(tmp_path / "job.yaml"), grid={"generation.seed": [5]})
    assert sweep.points[0].spec.generation.seed == 5


def test_all_mistakes_come_at_once_and_those_of_a_point_with_its_name() -> None:
    said = refusal(
        quality="corect",
        points=[
            {"name": "one", "generation.temprature": 1},
            {"name": "two", "generation.num_candidates": "many"},
            {"name": "two words", "generation.seed": 1},
        ],
    )
    assert "4 mistakes" in said
    assert "quality='corect': is no metric (did you mean correct?)" in said
    assert "point one: unknown key generation.temprature (did you mean temperature?)" in said
    assert "point two: generation.num_candidates='many': input should be a valid integer" in said
    assert "point name 'two words': expected at most 80 letters" in said


def test_a_mistake_of_the_job_itself_is_said_once() -> None:
    said = refusal(job={**JOB, "imput": {}}, grid={"generation.seed": [1, 2, 3]})
    assert said == "sweep spec: 1 mistake: unknown key imput (did you mean input?)"


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({}, "no points; expected a grid, a list of points, or both"),
        ({"grid": {"generation.seed": []}}, r"grid\.generation\.seed=\[\]: list should have at least 1"),
        ({"grid": {"generation.seed": list(range(1001))}}, "1001 points, expected at most 1000"),
        ({"gird": {}}, r"unknown key gird \(did you mean grid\?\)"),
        ({"points": [{"output.path": "x"}]}, "output.path: each point has a folder of its own"),
        ({"points": [{"cluster.address": "auto"}]}, "all points run on one Ray"),
        ({"set": {"name": "x"}, "points": [{}]}, "set: name: each point is called after the sweep"),
        ({"points": [{"name": "a", "input.limit": 1}, {"name": "A", "input.limit": 2}]}, "'a' comes 2 times"),
        ({"points": [{"generation.temperature.x": 1}]}, "generation.temperature is a value, not a sec"),
        ({"grid": {"generation.seed": [1]}, "quality": "correct"}, "quality='correct': only a judge knows"),
        ({"points": [{}], "judge": {"checker": "a:b", "references": "c"}}, "one of the two"),
        ({"points": [{}], "judge": {"metrik": "a"}}, r"unknown key judge\.metrik \(did you mean metric\?\)"),
        ({"points": [{}], "output": None}, "output is required"),
    ],
)
def test_what_cannot_work_is_refused(keys: dict[str, Any], match: str) -> None:
    with pytest.raises(JobError, match=match):
        make(**keys)


def test_two_points_that_are_the_same_job_are_refused_by_name() -> None:
    said = refusal(points=[{"name": "a", "generation.temperature": 0.7}, {"name": "b"}])
    assert "points a and b are the same job" in said
    said = refusal(points=[{"name": "a"}, {"name": "b", "cluster.max_workers": 2}])
    assert "points a and b are the same job" in said


def test_a_key_that_the_points_set_cannot_be_set_from_outside() -> None:
    tree = {"job": JOB, "grid": {"generation.seed": [1, 2]}, "output": {"path": "a"}}
    with pytest.raises(JobError, match=r"--set generation\.seed: the points of this sweep set it themselves"):
        parse_sweep(tree, overrides=["generation.seed=3"])
