"""README.md of an export: what it is, how it was made, what was left out; its header is the Hub's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cogbatch import __version__
from cogbatch.eval.export.example import SPLITS
from cogbatch.eval.export.format import Format
from cogbatch.eval.export.options import ExportOptions
from cogbatch.eval.export.tally import Tally
from cogbatch.eval.markdown import escaped, fenced, grid
from cogbatch.eval.metrics import Average
from cogbatch.eval.runs import Run
from cogbatch.redact import without_secrets

SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)
LARGEST = "n>10M"
LICENCE = """\
Before you train on this or pass it on, check what you may do with it: nobody has checked it for you.
Three licences meet here: that of the images and prompts, that of the model, and your own use. The weights of
CogVLM and CogVLM2 come under licences of their own, with conditions for commercial use and for naming the
model; a fine-tuned model keeps those of its base. Then add `license:` to the header above.
"""


def write_card(
    path: Path,
    kind: Format,
    options: ExportOptions,
    *,
    runs: Sequence[Run],
    tally: Tally,
    notes: Sequence[str],
    command: str,
) -> None:
    """Writes the card. Nothing in it depends on when it is written: the same runs give the same bytes."""
    names = ", ".join(dict.fromkeys(_name(run) for run in runs))
    header = yaml.safe_dump(_header(kind, options, names, tally), allow_unicode=True, sort_keys=False)
    total = sum(tally.examples.values())
    unit = "pairs" if options.is_pairs else "examples"
    parts = [
        f"---\n{header}---\n\n# {escaped(names)}\n",
        f"{total} {unit} for training, in the format `{options.format}` ({kind.source}), of the candidates"
        " that a vision-language model generated for images and prompts. Made by cogbatch"
        f" {__version__}. The texts were written by a model: some of them are wrong.\n",
        fenced(kind.reading.replace("{out}", ".")),
        *(f"- {escaped(note)}\n" for note in notes),
        f"## Licences\n\n{LICENCE}",
        f"## Counts\n\n{_counts(options, tally, unit)}",
        f"## Diversity\n\n{_diversity(tally)}",
        f"## How it was made\n\n{_how(options, tally)}",
        fenced(command) if command else "",
        fenced(_dump({"export": options.settings()}), "yaml"),
        *(fenced(_dump(_run(run)), "yaml") for run in runs),
        "Fingerprints of the models, as each row has them:"
        f" {', '.join(f'`{mark}`' for mark in sorted(tally.models))}.\n",
    ]
    text = without_secrets("\n".join(part for part in parts if part))
    path.write_text(text, encoding="utf-8", errors="replace", newline="\n")


def _header(kind: Format, options: ExportOptions, names: str, tally: Tally) -> dict[str, Any]:
    """As huggingface.co/docs/hub/datasets-cards has it."""
    total = sum(tally.examples.values())
    header: dict[str, Any] = {
        "pretty_name": " ".join(names.split()),
        "task_categories": [kind.task],
        "size_categories": [next((name for size, name in SIZES if total < size), LARGEST)],
        "tags": ["cogbatch", "synthetic"],
    }
    if kind.data_files is None:
        return header | {"viewer": False}
    files = [
        {"split": split, "path": kind.data_files.format(split=split)}
        for split in SPLITS
        if tally.examples[split]
    ]
    # datasets keeps what it loaded by the folder's last name and by this header, not by the data: without a
    # mark of the data, another export of that name would be answered with the rows of the first.
    mark = hashlib.blake2b(
        f"{options.settings()}{tally.fingerprint}".encode(errors="replace"), digest_size=16
    )
    description = f"fingerprint {mark.hexdigest()}"
    header["configs"] = [{"config_name": "default", "description": description, "data_files": files}]
    return header | ({"dataset_info": {"features": kind.features}} if kind.features else {})


def _counts(options: ExportOptions, tally: Tally, unit: str) -> str:
    splits = [(f"{unit}, {split}", tally.examples[split]) for split in SPLITS if tally.examples[split]]
    images = [(f"different images, {split}", count) for split, count in sorted(tally.images.items())]
    outcomes = [(f"items: {name}", count) for name, count in tally.outcomes.items()]
    dropped = [(f"candidates left out: {name}", count) for name, count in tally.dropped.items()]
    is_partial = tally.items < tally.run_items
    items = f"items, of {tally.run_items} (--partial: the run is not finished)" if is_partial else "items"
    learnt = "chosen candidates" if options.is_pairs else "candidates exported"
    wrong = f"{learnt} that are not correct by {options.judged_by}, of {tally.correct.total()}"
    rows = [
        *splits,
        *images,
        (items, tally.items),
        *outcomes,
        ("candidates", tally.candidates),
        *dropped,
        ("candidates exported", tally.exported_candidates),
        (wrong, tally.correct[False]),
    ]
    return grid(("", "count"), [(escaped(name), str(count)) for name, count in rows if count])


def _diversity(tally: Tally) -> str:
    before, after = tally.diversity()
    exported = {average.metric: average for average in after}
    names = [average.metric for average in before]
    names += [average.metric for average in after if average.metric not in names]
    found = {average.metric: average for average in before}
    rows = [
        (f"`{name}`", _interval(found.get(name)), _interval(exported.get(name)))
        for name in names
        if _interval(found.get(name)) or _interval(exported.get(name))
    ]
    said = "Means over items, of at most about 2,000 drawn, with 95 % intervals (bootstrap over items).\n\n"
    return said + grid(("", "all candidates of an item", "those exported"), rows)


def _interval(average: Average | None) -> str:
    if average is None or average.mean is None:
        return ""
    if average.low is None:
        return f"{average.mean:.3f}"
    return f"{average.mean:.3f} ({average.low:.3f} to {average.high:.3f})"


def _how(options: ExportOptions, tally: Tally) -> str:
    ranked = ", ".join(f"{escaped(name)} ({count} items)" for name, count in tally.scored_by.items())
    lines = [f"Candidates were scored by: {ranked or 'nothing'}."]
    if options.validation:
        lines.append(
            f"Split by image content, {options.split_by}: everything about one image is on one side"
            f" ({options.validation:.4g} of the images for validation, seed {options.seed})."
        )
    return "\n".join(lines) + "\n"


def _run(run: Run) -> dict[str, Any]:
    job = run.job
    spec = {key: job["spec"][key] for key in ("name", "model", "input", "generation") if key in job["spec"]}
    marks = {key: job[key] for key in ("model_fingerprint", "job_fingerprint", "dataset_fingerprint")}
    return {"run": run.public_name, **spec, **marks}


def _name(run: Run) -> str:
    return str(run.job["spec"].get("name", "run"))


def _dump(value: Mapping[str, Any]) -> str:
    plain = _plain(value)
    return str(yaml.safe_dump(plain, allow_unicode=True, sort_keys=False)).rstrip("\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
