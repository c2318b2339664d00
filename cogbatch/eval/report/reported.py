"""A run as the report has it: opened, digested, judged, and under a name of its own. Draws nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cogbatch.eval.digest import Digest
from cogbatch.eval.judge import Judge, Judgement
from cogbatch.eval.metrics import Average
from cogbatch.eval.runs import Item, Run
from cogbatch.eval.timeline import Timeline, timeline


@dataclass(frozen=True)
class Reported:
    """One run of the report. name: differs from those of the others. judge: None where nothing is judged."""

    name: str
    run: Run
    digest: Digest
    judge: Judge | None = None

    @property
    def unfinished(self) -> str:
        """How many rows of how many are there, where some are missing; else nothing."""
        digest = self.digest
        return f"{digest.rows_out:,} of {digest.rows_in:,} rows" if digest.rows_out < digest.rows_in else ""

    @property
    def timeline(self) -> Timeline | None:
        """When its rows were written, where that is known."""
        return timeline(self.run.job, self.run.parts)

    @property
    def averages(self) -> Mapping[str, Average]:
        """By metric."""
        return {average.metric: average for average in self.digest.averages}

    @property
    def sampled(self) -> Mapping[tuple[str, int], tuple[Item, tuple[Judgement | None, ...]]]:
        """Items of the sample by identity, each with what its candidates were judged."""
        judged = self.digest.judgements or ((),) * len(self.digest.sample)
        return {
            item.identity: (item, tuple(found) or (None,) * len(item.candidates))
            for item, found in zip(self.digest.sample, judged, strict=True)
        }


def names_of(runs: Sequence[Run], wanted: Sequence[str]) -> tuple[str, ...]:
    """A name for each run: the wanted ones where they differ, else the folders', else the paths."""
    paths = [str(run.path) for run in runs]
    for names in (list(wanted), [run.path.name for run in runs], paths):
        if len(set(names)) == len(names):
            return tuple(names)
    return tuple(f"{name} ({place})" for place, name in enumerate(paths, start=1))


def place_of_item(run: Run, item: Item) -> str:
    """The file and row of an item in the input; an image folder, whose file is ".", goes by its name."""
    file = item.input_file
    if file == ".":
        path = str(run.job["spec"]["input"].get("path", file))
        file = path.rstrip("/").rpartition("/")[2] or path
    return f"{file}, row {item.input_row}"


def settings_of(run: Run) -> dict[str, str]:
    """What a job was told that can change its results, flat: section.key -> value as text."""
    found = {}
    for section in ("model", "generation", "input"):
        for key, value in (run.job["spec"].get(section) or {}).items():
            found[f"{section}.{key}"] = "–" if value is None else str(value)
    return found


def differing_settings(runs: Sequence[Run]) -> dict[str, tuple[str, ...]]:
    """The settings that are not the same in all runs, each with its value in every run."""
    every = [settings_of(run) for run in runs]
    keys = dict.fromkeys(key for settings in every for key in settings)
    values = {key: tuple(settings.get(key, "–") for settings in every) for key in keys}
    return {key: found for key, found in values.items() if len(set(found)) > 1}
