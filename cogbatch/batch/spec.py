"""The job spec: YAML and `--set` overrides in, one checked frozen value out. No data, no Ray."""

from __future__ import annotations

import copy
import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_type_hints

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from cogbatch.dataset.options import InputOptions
from cogbatch.errors import JobError
from cogbatch.types import Dtype, GenerationParams, Quantization, Template

Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A part of a spec: known keys only, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _with_type(value: Any) -> Any:
    """A quantization that is only a type, spelt out."""
    return {"type": value} if isinstance(value, str) else value


class ModelSpec(Section):
    """Which model, and how it is loaded.

    Args:
        checkpoint: SAT directory (converted once, into a cache), model directory, URL of either, or hub id.
        tokenizer: directory or hub id; null: the checkpoint's own.
        dtype: of the weights, at load; auto: the checkpoint's own.
        quantization: int8, nf4, or {type, parts}; part of the job's identity: docs/quantization.md.
        version: prompt template by SAT's name; null: the checkpoint's own.
    """

    checkpoint: Text
    tokenizer: Text | None = None
    dtype: Literal["auto", Dtype] = "auto"
    quantization: Annotated[Quantization | None, BeforeValidator(_with_type)] = None
    version: Template | None = None


class OutputSpec(Section):
    """Where results go.

    Args:
        path: the run directory; one job each.
        shard_size: rows a part at most; auto: 8 to 512, more of them the more rows.
    """

    path: Text
    shard_size: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"


class ClusterSpec(Section):
    """How many workers of which size. All but cpus_per_worker may change when a job is started again.

    Args:
        address: local starts Ray here, auto joins the cluster of this machine.
        min_workers: what a job waits for before it starts.
        max_workers: up to which a job grows as there is room.
        gpus_per_worker: may be a fraction; 0: the worker computes on the CPU.
        cpus_per_worker: torch threads of a worker; part of the job's identity.
    """

    address: Literal["local", "auto"] = "local"
    min_workers: Annotated[int, Field(ge=1)] = 1
    max_workers: Annotated[int, Field(ge=1, le=100_000)] = 1
    gpus_per_worker: Annotated[float, Field(ge=0, le=1000)] = 0
    cpus_per_worker: Annotated[int, Field(ge=1, le=10_000)] = 1

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_workers > self.max_workers:
            raise ValueError(f"min_workers {self.min_workers} is above max_workers {self.max_workers}")
        return self


LONGEST_STALL_S = 365 * 86_400  # what timers of the system can hold is more


class ErrorsSpec(Section):
    """When to give up. May change when a job is started again.

    Args:
        max_error_rate: above this share of error rows the job stops; judged after 1,000 rows or 100 errors.
        shard_attempts: deaths of a worker before a shard is run row by row.
        stall_timeout_s: seconds without a step of the engine or an image before a worker is ended.
    """

    max_error_rate: Annotated[float, Field(ge=0, le=1)] = 0.05
    shard_attempts: Annotated[int, Field(ge=1)] = 2
    stall_timeout_s: Annotated[float, Field(ge=1, le=LONGEST_STALL_S)] = 600


def _with_preset(value: Any) -> Any:
    """A preset's values under what else is given."""
    if not isinstance(value, Mapping) or value.get("preset") is None:
        return value
    from cogbatch.engine import over_preset  # imports torch

    return over_preset(str(value["preset"]), {key: value[key] for key in value if key != "preset"})


Generation = Annotated[GenerationParams, BeforeValidator(_with_preset)]


class _Generation(Section):
    generation: Generation


class JobSpec(Section):
    """Everything one job is asked to do.

    Args:
        name: how the job calls itself in summaries and reports.
    """

    name: Text = "job"
    model: ModelSpec
    input: InputOptions
    generation: Generation = GenerationParams()
    output: OutputSpec
    cluster: ClusterSpec = ClusterSpec()
    errors: ErrorsSpec = ErrorsSpec()


def load_spec(path: str | Path, *, overrides: Sequence[str] = ()) -> JobSpec:
    """The spec in a YAML file, with `key.sub=value` overrides (values are YAML) laid over it.

    Raises:
        JobError: not readable, not YAML, or wrong; every mistake is named, with the nearest known key.
    """
    return parse_spec(read_tree(path, JobSpec), overrides=overrides, where=str(path))


def read_tree(path: str | Path, kind: type[BaseModel]) -> dict[str, Any]:
    """The mapping in a YAML file. kind: of spec, for messages. Raises JobError: not readable, no mapping."""
    path = Path(path)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise JobError(f"{path}: cannot read the spec: {err.strerror}. Expected a YAML file.") from err
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise JobError(f"{path}: not valid YAML: {' '.join(str(err).split())}") from err
    if not isinstance(tree, dict):
        known = _names(_keys((), kind))
        raise JobError(f"{path}: expected a mapping with {known}, found {type(tree).__name__}.")
    return tree


def parse_spec(tree: Mapping[str, Any], *, overrides: Sequence[str] = (), where: str = "job spec") -> JobSpec:
    """The checked spec of a mapping, with `key.sub=value` overrides over it.

    Raises JobError that lists every mistake; where: named in it.
    """
    changed = copy.deepcopy(dict(tree))
    for override in overrides:
        set_key(changed, *parse_override(override), where=f"--set {override}")
    try:
        return JobSpec.model_validate(changed)
    except ValidationError as err:
        raise all_mistakes(where, mistakes(err)) from None


def parse_generation(
    values: Mapping[str, Any], *, overrides: Sequence[str] = (), where: str = "generation"
) -> GenerationParams:
    """The parameters in a mapping like a job's section `generation`, with `key=value` overrides over it.

    Raises JobError that lists every mistake; where: named in it.
    """
    tree = dict(values)
    for override in overrides:
        set_key(tree, *parse_override(override), where=f"--set {override}")
    try:
        return _Generation(generation=tree).generation  # type: ignore[arg-type] # validated there
    except ValidationError as err:
        raise all_mistakes(where, mistakes(err)) from None


def mistakes(err: ValidationError, kind: type[BaseModel] = JobSpec) -> list[str]:
    """What is wrong with a spec of that kind, a phrase each."""
    return [_mistake(error, kind) for error in err.errors()]


def all_mistakes(where: str, found: Sequence[str]) -> JobError:
    """The error that lists them."""
    count = "1 mistake" if len(found) == 1 else f"{len(found)} mistakes"
    return JobError(f"{where}: {count}: {'; '.join(found)}")


def parse_override(override: str) -> tuple[str, Any]:
    """Key and value of a `key.sub=value`. Raises JobError."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise JobError(f"--set {override}: expected key=value, for example --set generation.seed=1.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as err:
        raise JobError(
            f"--set {override}: the value is not valid YAML: {' '.join(str(err).split())}"
        ) from err
    return key, value


def set_key(tree: dict[str, Any], key: str, value: Any, *, where: str) -> None:
    """Sets a dotted key of a nested mapping; sections that are not there are made.

    Raises JobError: a part of the key is a value. where: who asks, for that.
    """
    *parents, last = key.split(".")
    for depth, parent in enumerate(parents):
        if tree.get(parent) is None:
            tree[parent] = {}
        tree = tree[parent]
        if not isinstance(tree, dict):
            raise JobError(f"{where}: {'.'.join(parents[: depth + 1])} is a value, not a section.")
    tree[last] = value


def _mistake(error: Any, kind: type[BaseModel]) -> str:
    loc = tuple(str(part) for part in error["loc"])
    name = ".".join(loc) or "the spec"
    if error["type"] not in ("extra_forbidden", "unexpected_keyword_argument"):
        if error["type"] == "missing":
            return f"{name} is required"
        if error["type"] == "tuple_type":
            return f"{name}={error['input']!r}: expected a list, for example [{error['input']}]"
        said = error["msg"].removeprefix("Value error, ")
        if isinstance(error["input"], Mapping) and said != error["msg"]:  # of a whole section
            return f"{name}: {said}"
        return f"{name}={error['input']!r}: {said[0].lower()}{said[1:]}"
    known = _keys(loc[:-1], kind)
    near = difflib.get_close_matches(loc[-1], known, n=1)
    sections = _keys((), kind)
    elsewhere = [f"{section}.{loc[-1]}" for section in sections if loc[-1] in _keys((section,), kind)]
    hint = f"did you mean {(near or elsewhere)[0]}?" if near or elsewhere else f"known here: {_names(known)}"
    return f"unknown key {name} ({hint})"


def _keys(loc: tuple[str, ...], kind: Any) -> list[str]:
    """Known keys of the section at loc of a spec of that kind; () is the top level."""
    for part in loc:
        if hasattr(kind, "model_fields"):
            field = kind.model_fields.get(part)
            kind = field.annotation if field else None
        elif dataclasses.is_dataclass(kind):
            kind = get_type_hints(kind).get(part)
        else:  # a member of a list
            kind = next(iter(get_args(kind)), None)
        if type(None) in get_args(kind):  # a section that may be null
            kind = get_args(kind)[0]
    if hasattr(kind, "model_fields"):
        return list(kind.model_fields)
    names = [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
    return ["preset", *names] if kind is GenerationParams else names


def _names(keys: list[str]) -> str:
    return ", ".join(keys)
