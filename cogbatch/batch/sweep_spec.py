"""The sweep spec: one job in many settings. YAML and overrides in, a checked job spec for every point out."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from cogbatch.batch.spec import (
    JobSpec,
    Section,
    Text,
    all_mistakes,
    mistakes,
    parse_override,
    read_tree,
    set_key,
)
from cogbatch.errors import JobError
from cogbatch.metric_names import why_unknown
from cogbatch.redact import sayable
from cogbatch.types import JudgeOptions

MAX_POINTS = 1_000
MAX_NAME = 80  # characters; also what a file system and a terminal bear
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
# Of the sweep as a whole, so that no point may have its own.
NOT_OF_A_POINT = {
    "name": "each point is called after the sweep and itself",
    "output.path": "each point has a folder of its own in the sweep's",
    "cluster.address": "all points run on one Ray; use set",
}


class SweepOutput(Section):
    """Where the run directories of the points and the table go.

    Args:
        path: the sweep's directory.
    """

    path: Text


class SweepSpec(Section):
    """What is written in a sweep's file.

    Args:
        name: how the sweep calls itself.
        job: path of a job spec, or its keys in place; its output.path is not used.
        set: dotted keys over the job, for all points.
        grid: dotted keys with lists of values; every combination is a point.
        points: further points: dotted keys each, and perhaps a name.
        judge: what candidates are judged by; null: nothing is said about right and wrong.
        quality: metric, one axis of the front; null: correct, else score, else logprob_per_token.
        diversity: metric, the other axis; null: vendi_score.
    """

    name: Text = "sweep"
    job: Text | dict[str, Any]
    set: dict[Text, Any] = Field(default_factory=dict)
    grid: dict[Text, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    points: list[dict[Text, Any]] = Field(default_factory=list)
    judge: JudgeOptions | None = None
    quality: Text | None = None
    diversity: Text | None = None
    output: SweepOutput


@dataclass(frozen=True)
class Point:
    """One setting, in what can be shown of it and as a job.

    overrides: the dotted keys that make it. settings: the keys of all points, with their values here.
    """

    name: str
    overrides: Mapping[str, Any]
    settings: Mapping[str, Any]
    spec: JobSpec


@dataclass(frozen=True)
class Sweep:
    """A checked sweep. path: its directory. quality, diversity: None: the first of the usual there is."""

    name: str
    path: str
    points: tuple[Point, ...]
    judge: JudgeOptions | None
    quality: str | None
    diversity: str | None


def load_sweep(path: str | Path, *, overrides: Sequence[str] = ()) -> Sweep:
    """The sweep in a YAML file; overrides: `key=value`, keys of the sweep or of all its jobs.

    Raises JobError: not readable, not YAML, or wrong; every mistake is named, those of a point with its name.
    """
    return parse_sweep(read_tree(path, SweepSpec), overrides=overrides, where=str(path))


def parse_sweep(
    tree: Mapping[str, Any], *, overrides: Sequence[str] = (), where: str = "sweep spec"
) -> Sweep:
    """The checked sweep of a mapping; as load_sweep. where: named in errors."""
    changed = copy.deepcopy(dict(tree))
    for key, value in map(parse_override, overrides):
        section = key.partition(".")[0]
        if key == "output.path" or (section != "output" and section in SweepSpec.model_fields):
            set_key(changed, key, value, where=f"--set {key}")
        elif isinstance(changed.setdefault("set", {}), dict):
            changed["set"][key] = value
    try:
        spec = SweepSpec.model_validate(changed)
    except ValidationError as err:
        raise all_mistakes(where, mistakes(err, SweepSpec)) from None
    given = {key for key, _ in map(parse_override, overrides)}
    named = _named_points(spec)
    found = [*_wrong_keys(spec, named, given), *_wrong_axes(spec)]
    base = read_tree(spec.job, JobSpec) if isinstance(spec.job, str) else spec.job
    points, wrong = _points(spec, base, named)
    found += wrong
    if not found:
        found += _equal_points(points)
    if found:
        raise all_mistakes(where, found)
    return Sweep(spec.name, spec.output.path, points, spec.judge, spec.quality, spec.diversity)


def _named_points(spec: SweepSpec) -> list[tuple[str, dict[str, Any]]]:
    """Names and overrides: first the grid, its last key running fastest, then the list."""
    grid = [dict(zip(spec.grid, values, strict=True)) for values in itertools.product(*spec.grid.values())]
    made = [(None, overrides) for overrides in grid if overrides]
    for point in spec.points:
        made.append((point.get("name"), {key: value for key, value in point.items() if key != "name"}))
    if not made:
        raise JobError(f"sweep {spec.name}: no points; expected a grid, a list of points, or both")
    if len(made) > MAX_POINTS:
        raise JobError(f"sweep {spec.name}: {len(made)} points, expected at most {MAX_POINTS}")
    return _with_names(made)


def _with_names(made: Sequence[tuple[Any, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """A name for those that have none; what it leaves out or shares with others is told apart by a hash."""
    derived = [_name_of(overrides) for _, overrides in made]
    count = Counter(name.casefold() for name in derived)
    named = []
    for (name, overrides), (text) in zip(made, derived, strict=True):
        if name is None:
            name = text
            if len(text) > MAX_NAME or count[text.casefold()] > 1:
                digest = hashlib.sha256(_json(overrides).encode()).hexdigest()[:8]
                name = f"{text[: MAX_NAME - 9]}-{digest}"
        named.append((str(name), overrides))
    return named


def _name_of(overrides: Mapping[str, Any]) -> str:
    """strategy-sample_temperature-0.5: keys by their last word, characters that are safe in any file name."""
    pairs = [f"{key.rpartition('.')[2]}-{_word(value)}" for key, value in overrides.items()]
    return "_".join(re.sub(r"[^A-Za-z0-9.]+", "-", pair).strip("-.") for pair in pairs) or "base"


def _word(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return sayable(value) if isinstance(value, str) else _json(value)


def _wrong_keys(
    spec: SweepSpec, named: Sequence[tuple[str, Mapping[str, Any]]], given: set[str]
) -> Iterable[str]:
    for name, overrides in named:
        if not NAME.fullmatch(name):
            yield (
                f"point name {name!r}: expected at most {MAX_NAME} letters, digits, '.', '_' and '-',"
                " the first a letter or digit"
            )
        yield from (
            f"point {name}: {key}: {NOT_OF_A_POINT[key]}" for key in overrides if key in NOT_OF_A_POINT
        )
    yield from (f"set: {key}: {NOT_OF_A_POINT[key]}" for key in ("name", "output.path") if key in spec.set)
    counts = Counter(name.casefold() for name, _ in named)
    yield from (f"point name {name!r} comes {count} times" for name, count in counts.items() if count > 1)
    swept = {key for _, overrides in named for key in overrides}
    yield from (f"--set {key}: the points of this sweep set it themselves" for key in sorted(given & swept))


def _wrong_axes(spec: SweepSpec) -> Iterable[str]:
    """Metrics that no run of this sweep can have."""
    for axis in ("quality", "diversity"):
        metric = getattr(spec, axis)
        reason = metric and why_unknown(metric, judged=spec.judge is not None)
        if reason:
            yield f"{axis}={metric!r}: {reason}"


def _points(
    spec: SweepSpec, base: Mapping[str, Any], named: Sequence[tuple[str, dict[str, Any]]]
) -> tuple[tuple[Point, ...], list[str]]:
    """The points, and what is wrong with them; what is wrong with all of them is said once."""
    keys = list(dict.fromkeys(key for _, overrides in named for key in overrides))
    points: list[Point] = []
    wrong: dict[str, list[str]] = {}
    for name, overrides in named:
        try:
            tree = _tree(spec, base, name, overrides)
            job = JobSpec.model_validate(tree)
        except ValidationError as err:
            wrong[name] = mistakes(err)
        except JobError as err:
            wrong[name] = [str(err)]
        else:
            values = job.model_dump(mode="json")
            settings = {key: _value(tree, key, _value(values, key)) for key in keys}
            points.append(Point(name, _shown(overrides), _shown(settings), job))
    return tuple(points), said_once(wrong, of=len(named))


def said_once(wrong: Mapping[str, Sequence[str]], *, of: int) -> list[str]:
    """What is wrong with points, by name: once where it is with all of them, else with the point's name."""
    count = Counter(line for lines in wrong.values() for line in set(lines))
    shared = [line for line, number in count.items() if number == of]
    own = [f"point {name}: {line}" for name, lines in wrong.items() for line in lines if line not in shared]
    return [*shared, *own]


def _tree(
    spec: SweepSpec, base: Mapping[str, Any], name: str, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    tree = copy.deepcopy(dict(base))
    for key, value in spec.set.items():
        set_key(tree, key, copy.deepcopy(value), where=f"set: {key}")
    for key, value in overrides.items():
        set_key(tree, key, copy.deepcopy(value), where=key)
    tree["name"] = f"{spec.name}/{name}"
    set_key(tree, "output.path", f"{spec.output.path.rstrip('/')}/points/{name}", where="output")
    references = spec.judge.references if spec.judge else None
    if references is not None and isinstance(tree.get("input"), dict):
        columns = tree["input"].get("columns") or []
        if isinstance(columns, list) and references not in columns:
            tree["input"]["columns"] = [*columns, references]
    return tree


def _value(tree: Any, key: str, otherwise: Any = None) -> Any:
    """What a nested mapping has under a dotted key."""
    for part in key.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return otherwise
        tree = tree[part]
    return tree


def _equal_points(points: Iterable[Point]) -> Iterable[str]:
    """Points that are one job: nothing that candidates depend on differs."""
    first: dict[str, str] = {}
    for point in points:
        spec = point.spec
        identity = _json(
            [
                spec.model.model_dump(mode="json"),
                asdict(spec.input),
                asdict(spec.generation),
                spec.output.shard_size,
                spec.cluster.cpus_per_worker,
            ]
        )
        if identity in first:
            yield f"points {first[identity]} and {point.name} are the same job: no key makes them differ"
        first.setdefault(identity, point.name)


def _shown(value: Any) -> Any:
    """A value of JSON without the secrets of its addresses."""
    if isinstance(value, Mapping):
        return {str(key): _shown(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(inner) for inner in value]
    return sayable(value) if isinstance(value, str) else value


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
