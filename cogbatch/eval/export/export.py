"""Runs in, one folder of training data out: what cogbatch export does, in one pass over each run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from cogbatch.dataset.atomic import write_json
from cogbatch.dataset.dataset import Dataset
from cogbatch.dataset.object_path import Place
from cogbatch.dataset.rows import Row
from cogbatch.errors import CogbatchError, EvaluationError
from cogbatch.eval.export.card import write_card
from cogbatch.eval.export.duplicates import Duplicates
from cogbatch.eval.export.example import SPLITS, Choice, Example, Split
from cogbatch.eval.export.format import About, Format, Writer
from cogbatch.eval.export.formats import FORMATS
from cogbatch.eval.export.openai_chat import MAX_EXAMPLES
from cogbatch.eval.export.options import ExportOptions
from cogbatch.eval.export.picture import Picture, read_picture
from cogbatch.eval.export.place import CARD, MARKER, appearing, check_place
from cogbatch.eval.export.reading import in_order, items_with_rows
from cogbatch.eval.export.scores import SELECTOR, Scorer, open_scorer
from cogbatch.eval.export.selection import UNDECIDED, make_pairs, select, usable
from cogbatch.eval.export.split import side
from cogbatch.eval.export.tally import EXPORTED, Tally
from cogbatch.eval.run_input import open_input
from cogbatch.eval.runs import Item, Run, open_run
from cogbatch.redact import lacks_secrets
from cogbatch.text import normalise

ERROR_ROW, NOTHING_LEFT = "error rows", "no candidate left"
NO_IMAGE, NO_ROW = "image missing or damaged", "input row changed or gone"
NO_PAIR = "without a pair of candidates that differ enough in score"
ALL_DUPLICATES = "only duplicates, or what the format cannot hold"
REPORT_EVERY = 100  # items

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Exported:
    """What was written: where, counts as in the card, and what should be known about it."""

    out: Place
    counts: dict[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """One run, opened with all that its items need."""

    number: int
    run: Run
    dataset: Dataset
    scorer: Scorer
    files: Mapping[str, int]

    @property
    def is_as_it_was(self) -> bool:
        return self.dataset.fingerprint == str(self.run.job["dataset_fingerprint"])


@dataclass(frozen=True)
class _Chosen:
    """An item with what was chosen of it; the image still to be read."""

    source: _Source
    item: Item
    row: Row | str
    pairs: tuple[tuple[Choice, Choice | None], ...]


def export_runs(
    run_dirs: Sequence[str | Place],
    out: str | Place,
    options: ExportOptions,
    *,
    overwrite: bool = False,
    command: str = "",
    on_progress: Progress | None = None,
) -> Exported:
    """Writes the candidates that the options choose as training data, with a card, whole or not at all.

    Held in memory: hashes of texts and images (about 400 bytes an example, with dedupe near 6 KB more), a few
    rows and images, and for each split one Parquet row group.

    Args:
        run_dirs: one or several; each item of each run is chosen from on its own.
        overwrite: an earlier export is replaced. command: what made it, for the card.
        on_progress: called with items done and all items.

    Raises RunDirectoryError: not a run, or not finished. EvaluationError: what cannot be exported as asked.
    DatasetError: the input of a run cannot be opened again.
    """
    kind = FORMATS[options.format]
    place = check_place(out, overwrite=overwrite, may_be_remote=kind.may_be_remote)
    sources = [_open(number, path, options) for number, path in enumerate(run_dirs)]
    if not sources:
        raise ValueError("no run to export; name at least one")
    runs = [source.run for source in sources]
    tally = Tally(sum(run.num_finished for run in runs), sum(run.num_rows for run in runs), options.split_by)
    with appearing(place, overwrite=overwrite) as folder:
        writer = kind.open(folder, options, _about(runs))
        try:
            _fill(writer, kind, sources, options, tally, on_progress)
        finally:
            writer.close()
        if not tally.examples:
            raise EvaluationError(
                f"nothing to export from {tally.items} items: {_reasons(tally)}{_advice(options, tally)}"
            )
        notes = tuple(_notes(sources, options, tally))
        write_card(folder / CARD, kind, options, runs=runs, tally=tally, notes=notes, command=command)
        names = sorted({path.name for path in folder.iterdir()} | {MARKER})
        marker = {"names": names, "settings": options.settings(), **tally.counts()}
        write_json(folder / MARKER, marker)
    return Exported(place, tally.counts(), notes)


def _open(number: int, path: str | Place, options: ExportOptions) -> _Source:
    run = open_run(path)
    if run.num_finished != run.num_rows and not options.partial:
        raise EvaluationError(
            f"{run.path} has {run.num_finished} of {run.num_rows} rows; run its job to the end, or export"
            " what there is with --partial"
        )
    try:
        dataset = open_input(run)
    except (OSError, TypeError, ValueError) as err:
        raise EvaluationError(
            f"{run.path}: its input cannot be opened again ({' '.join(str(err).split())}); images are read"
            " from there"
        ) from err
    files = {name: index for index, name in enumerate(run.job["files"])}
    return _Source(number, run, dataset, open_scorer(options, run), files)


def _about(runs: Sequence[Run]) -> About:
    names = dict.fromkeys(str(run.job["spec"].get("name", "run")) for run in runs)
    return About(", ".join(names), str(runs[0].job.get("started", ""))[:10])


def _fill(
    writer: Writer,
    kind: Format,
    sources: Sequence[_Source],
    options: ExportOptions,
    tally: Tally,
    on_progress: Progress | None,
) -> None:
    duplicates = Duplicates(options.dedupe, near=options.nearness, with_prompt=kind.has_prompts)
    chosen = (found for source in sources for found in _choose(source, options, tally, on_progress))
    for found, picture in in_order(partial(_with_picture, kind=kind, options=options), chosen):
        if isinstance(picture, str):
            outcome = NO_IMAGE if isinstance(found.row, Row) else NO_ROW
            tally.outcomes[outcome] += 1
            tally.dropped[outcome] += sum(1 + (rejected is not None) for _, rejected in found.pairs)
            tally.add_reason(outcome, picture)
            continue
        kept = []
        for example in _examples(found, picture):
            if reason := kind.refuse(example) or duplicates.reason(example):
                tally.dropped[reason] += 1 + (example.rejected is not None)
                continue
            split = _side(example, options)
            writer.write(example, split)
            tally.add_example(example, split)
            kept.append(example)
        tally.outcomes[EXPORTED if kept else ALL_DUPLICATES] += 1
        tally.measure(found.source.number, found.item, kept)


def _choose(
    source: _Source, options: ExportOptions, tally: Tally, on_progress: Progress | None
) -> Iterator[_Chosen]:
    """The items of a run of which something is chosen; the others are counted on the way."""
    for item, row in items_with_rows(source.run, source.dataset, carried=source.scorer.columns):
        tally.add_item(item)
        if on_progress is not None and (
            tally.items % REPORT_EVERY == 0 or tally.items == tally.expected_items
        ):
            on_progress(tally.items, tally.expected_items)
        if item.error is not None:
            tally.outcomes[ERROR_ROW] += 1
            continue
        candidates = usable(item.candidates, options, tally.dropped)
        pairs: list[tuple[Choice, Choice | None]] = []
        if candidates:
            scored = source.scorer(item, candidates)
            tally.scored_by[scored.by] += 1
            tally.has_scores |= any(choice.score is not None for choice in scored.choices)
            if options.is_pairs:
                pairs = list(make_pairs(scored, options, tally.dropped))
            else:
                pairs = [(choice, None) for choice in select(scored, options, tally.dropped)]
        if pairs:
            yield _Chosen(source, item, row, tuple(pairs))
        else:
            tally.outcomes[NO_PAIR if options.is_pairs else NOTHING_LEFT] += 1
            tally.measure(source.number, item, ())


def _with_picture(
    found: _Chosen, *, kind: Format, options: ExportOptions
) -> tuple[_Chosen, Picture | str | None]:
    """With its picture, None for a text-only item, or why it has none, or no row."""
    row = found.row
    if isinstance(row, str):
        return found, row
    if row.image is None:
        return found, row.error.message if row.error else None
    try:
        picture = read_picture(
            row.image,
            limits=found.source.dataset.image_limits,
            modes=kind.modes,
            always_png=options.image_format == "png",
        )
        return found, picture
    except (CogbatchError, OSError) as err:
        return found, " ".join(str(err).split())


def _examples(found: _Chosen, picture: Picture | None) -> Iterator[Example]:
    item, source = found.item, found.source
    file = source.files[item.input_file]
    url = found.row.image_ref if isinstance(found.row, Row) else None
    is_address = url is not None and url.startswith(("http://", "https://")) and not lacks_secrets(url)
    for chosen, rejected in found.pairs:
        yield Example(
            id=f"{source.number}-{file}-{item.input_row}-{chosen.candidate.index}",
            source_id=item.id,
            prompt=item.prompt or "",
            picture=picture,
            chosen=chosen,
            rejected=rejected,
            url=url if is_address else None,
        )


def _side(example: Example, options: ExportOptions) -> Split:
    picture = example.picture
    group = f"text:{normalise(example.prompt)}" if picture is None else picture.group(options.split_by)
    return side(group, validation=options.validation, seed=options.seed)


def _reasons(tally: Tally) -> str:
    counts = {**tally.outcomes, **tally.dropped}
    said = [f"{count} {reason}" for reason, count in counts.items() if count]
    said += [f"for example {tally.reasons(name, most=1)}" for name in (NO_IMAGE, NO_ROW) if counts.get(name)]
    return "; ".join(said) or "the runs have none"


def _advice(options: ExportOptions, tally: Tally) -> str:
    """What to do when nothing was left, where that is known."""
    if options.score == SELECTOR and not tally.has_scores:
        return "; no selector or beam chose in these runs, so there are no such scores: use another --score"
    if tally.dropped[UNDECIDED]:
        return "; add --threshold, the score from which a candidate is correct"
    return ""


def _notes(sources: Sequence[_Source], options: ExportOptions, tally: Tally) -> Iterator[str]:
    for source in sources:
        if not source.is_as_it_was:
            yield (
                f"{source.run.public_name}: the input's files have another size or time than when the job ran"
                "; rows whose id changed were left out, but images may not be those seen"
            )
    for name, said in ((NO_IMAGE, "image is missing or damaged"), (NO_ROW, "input row changed or is gone")):
        if tally.outcomes[name]:
            yield f"{tally.outcomes[name]} items left out, their {said}: {tally.reasons(name)}"
    for split in SPLITS if options.validation else SPLITS[:1]:
        if not tally.examples[split]:
            yield f"no example fell into the {split} split: too few images for this share"
    if options.format == "openai-chat" and max(tally.examples.values()) > MAX_EXAMPLES:
        yield f"more than {MAX_EXAMPLES} examples: OpenAI takes no larger file; split it, or select fewer"
    if options.format == "webdataset" and len(tally.extensions) > 1:
        yield (
            f"images are {', '.join(sorted(tally.extensions))}: webdataset reads them, datasets.load_dataset"
            " wants one kind; --image-format png makes them one"
        )
