"""How good each candidate of an item is: by a checker of the user's, or by references in a carried column.

Without either nothing is judged: what the model thinks of its own candidates is a metric, not a judgement.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import numbers
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cogbatch.errors import EvaluationError
from cogbatch.eval.metrics import CiderD, exact_match, rouge_l, sentence_bleu, vqa_accuracy
from cogbatch.eval.runs import Item, Run
from cogbatch.text import did_you_mean
from cogbatch.types import JudgeOptions

# From which score a candidate is correct, where the metric itself says so.
THRESHOLDS: Mapping[str, float] = {"vqa": 1.0, "exact": 1.0}
# Of one text against its references.
SIMPLE: Mapping[str, Callable[[str, Sequence[str]], float | None]] = {
    "bleu": sentence_bleu,
    "rouge-l": rouge_l,
    "vqa": vqa_accuracy,
    "exact": exact_match,
}


@dataclass(frozen=True)
class Judgement:
    """What one candidate is worth; None where it is not defined, for example without references.

    content: equal for texts that say the same, where a checker can tell.
    """

    score: float | None = None
    correct: bool | None = None
    content: str | None = None


@dataclass(frozen=True)
class Judge:
    """Judges items of the runs that it was opened for.

    Args:
        name: what the judgement goes by, for tables: the checker, or metric and column.
        columns: carried columns that it reads.
    """

    name: str
    columns: tuple[str, ...]
    score: Callable[[Item], Iterable[Judgement]]

    def __call__(self, item: Item) -> tuple[Judgement, ...]:
        """One judgement for each candidate, in order. Raises EvaluationError: the checker failed."""
        return tuple(self.score(item))


def open_judge(options: JudgeOptions, run: Run) -> Judge:
    """The judge for the items of a run, and of any other run over the same input.

    Raises EvaluationError: no such function or column, or a column that holds no texts.
    """
    if options.checker is not None:
        check = load_function(options.checker)
        judged = partial(_checked, check=check, name=options.checker, threshold=options.threshold)
        return Judge(options.checker, run.carried, judged)
    column = str(options.references)
    if column not in run.carried:
        there = ", ".join(run.carried) or "none"
        raise EvaluationError(
            f"{run.path}: no carried column {column!r} with references, carried are: {there};"
            " name it in input.columns of the job"
        )
    if options.metric == "cider":
        corpus = CiderD.of(_references(item, column) for item in run.items(carried=(column,)))
        scores: Callable[[Sequence[str], Sequence[str]], Sequence[float | None]] = corpus.scores
    else:
        scores = partial(_each, SIMPLE[options.metric])
    threshold = THRESHOLDS.get(options.metric) if options.threshold is None else options.threshold
    judged = partial(_compared, column=column, scores=scores, threshold=threshold)
    return Judge(f"{options.metric} against {column}", (column,), judged)


def load_function(name: str) -> Callable[..., Any]:
    """The function that `module:function` names; modules in the current directory are found too.

    Raises EvaluationError: not of this form, no such module or function, or the module cannot be imported.
    """
    module_name, colon, function_name = name.partition(":")
    if not (colon and module_name and function_name):
        raise EvaluationError(f"{name!r}: expected module:function, for example jobs.demo.check:check")
    try:
        with _current_directory_on_path():
            module = importlib.import_module(module_name)
    except Exception as err:  # whatever the module does when it is imported
        raise EvaluationError(f"{name}: {module_name} cannot be imported: {_line(err)}") from err
    found = getattr(module, function_name, None)
    if not callable(found):
        own = [key for key, value in vars(module).items() if key[0] != "_" and _is_function(value, module)]
        hint = did_you_mean(function_name, own) or f"its own are: {', '.join(own) or 'none'}"
        raise EvaluationError(f"{name}: {module_name} has no function {function_name} ({hint})")
    return found


def _is_function(value: Any, module: ModuleType) -> bool:
    """Whether it is one that the module defines, and did not import."""
    is_own = getattr(value, "__module__", None) == module.__name__
    return is_own and callable(value) and not isinstance(value, type)


def _checked(
    item: Item, *, check: Callable[[str, Mapping[str, Any]], Any], name: str, threshold: float | None
) -> Iterator[Judgement]:
    row = {
        **item.carried,
        "id": item.id,
        "prompt": item.prompt,
        "image": item.image,
        "input_file": item.input_file,
        "input_row": item.input_row,
    }
    for candidate in item.candidates:
        try:
            yield _judgement(check(candidate.text, deepcopy(row)), threshold)
        except Exception as err:
            raise EvaluationError(
                f"{name} failed on {item.input_file}, row {item.input_row}, candidate {candidate.index}"
                f" ({candidate.text[:60]!r}): {_line(err)}"
            ) from err


def _judgement(found: Any, threshold: float | None) -> Judgement:
    """Raises TypeError or ValueError: not what a checker may return."""
    if isinstance(found, np.bool_):  # what comparisons of arrays give
        found = bool(found)
    correct = found if isinstance(found, bool) else getattr(found, "correct", None)
    score = getattr(found, "score", found)
    if not isinstance(score, numbers.Real):  # numpy's floats are too
        raise TypeError(f"returned {found!r}; expected a bool, a number, or an object with a score")
    value = float(score)
    if not math.isfinite(value):
        raise ValueError(f"the score is {value}; expected a finite number")
    if threshold is not None:
        correct = value >= threshold
    content = getattr(found, "content", None)
    return Judgement(
        value,
        None if correct is None else bool(correct),
        None if content is None else str(content),
    )


def _compared(
    item: Item,
    *,
    column: str,
    scores: Callable[[Sequence[str], Sequence[str]], Sequence[float | None]],
    threshold: float | None,
) -> Iterator[Judgement]:
    texts = [candidate.text for candidate in item.candidates]
    for score in scores(texts, _references(item, column)):
        correct = None if score is None or threshold is None else score >= threshold
        yield Judgement(score, correct)


def _each(
    metric: Callable[[str, Sequence[str]], float | None], texts: Sequence[str], references: Sequence[str]
) -> list[float | None]:
    return [metric(text, references) for text in texts]


def _references(item: Item, column: str) -> list[str]:
    value = item.carried[column]
    if isinstance(value, str) and value.startswith("["):  # how a list in JSONL is carried
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    texts = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise EvaluationError(
            f"{item.input_file}, row {item.input_row}: column {column!r} is {type(value).__name__};"
            " expected a text or a list of texts as references"
        )
    return texts


@contextlib.contextmanager
def _current_directory_on_path() -> Iterator[None]:
    """`python -m` has it there, an installed command has not."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _line(err: BaseException) -> str:
    return f"{type(err).__name__}: {' '.join(str(err).split())}"
