"""What became of every item and every candidate, and how diverse they are."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cogbatch.eval.export.example import Example, Split
from cogbatch.eval.metrics import Average, averages, item_metrics
from cogbatch.eval.runs import Item
from cogbatch.types import Candidate, SplitBy

SAMPLE = 2000  # items that the diversity figures are over, about
EXPORTED = "exported"
IN_CONTENT_BYTES = 16


@dataclass
class Tally:
    """Counts that add up: each item has one outcome, each candidate is in an example or was dropped once.

    Args:
        expected_items: of all runs, as far as they are finished; run_items: when they are.
        split_by: what images are counted by. outcomes: of items. dropped: candidates, by reason.
        scored_by: items, by what ranked their candidates. correct: whether the candidates to learn from are,
        where something says so; the worse ones of dpo are not among them.
    """

    expected_items: int
    run_items: int
    split_by: SplitBy
    items: int = 0
    candidates: int = 0
    exported_candidates: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    scored_by: Counter[str] = field(default_factory=Counter)
    has_scores: bool = False  # at least one candidate
    correct: Counter[bool] = field(default_factory=Counter)
    examples: Counter[Split] = field(default_factory=Counter)
    models: set[str] = field(default_factory=set)
    extensions: Counter[str] = field(default_factory=Counter)
    _reasons: dict[str, Counter[str]] = field(default_factory=dict)  # of an outcome, a few
    _images: dict[Split, set[bytes]] = field(default_factory=dict)
    _digest: hashlib.blake2b = field(default_factory=lambda: hashlib.blake2b(digest_size=16))
    _before: list[Mapping[str, float | None]] = field(default_factory=list)
    _after: list[Mapping[str, float | None]] = field(default_factory=list)

    def add_item(self, item: Item) -> None:
        """Counts an item, whatever becomes of it."""
        self.items += 1
        self.candidates += len(item.candidates)
        self.models.add(item.model_fingerprint)

    def add_example(self, example: Example, split: Split) -> None:
        """Counts what was written."""
        self.examples[split] += 1
        if example.chosen.is_correct is not None:
            self.correct[example.chosen.is_correct] += 1
        self.exported_candidates += 1 if example.rejected is None else 2
        content = example.picture and replace(example.picture, data=b"")
        self._digest.update(repr((split, replace(example, picture=content))).encode(errors="replace"))
        if example.picture is not None:
            self.extensions[example.picture.extension] += 1
            name = bytes.fromhex(example.picture.content)[:IN_CONTENT_BYTES]
            self._images.setdefault(split, set()).add(name)

    def add_reason(self, outcome: str, reason: str) -> None:
        """Counts why an item had this outcome."""
        reasons = self._reasons.setdefault(outcome, Counter())
        if reason in reasons or len(reasons) < SAMPLE:
            reasons[reason] += 1

    def reasons(self, outcome: str, *, most: int = 3) -> str:
        """The most frequent reasons for an outcome, each with its count."""
        found = self._reasons[outcome].most_common(most)
        return "; ".join(f"{reason} ({count})" for reason, count in found)

    def measure(self, run: int, item: Item, exported: Iterable[Example]) -> None:
        """Takes the item into the diversity figures, if it is drawn: by a hash of its place."""
        digest = hashlib.blake2b(f"{run}:{item.identity}".encode(), digest_size=8).digest()
        if int.from_bytes(digest) * self.expected_items >= SAMPLE * 2**64:
            return
        self._before.append(vars(item_metrics(item.candidates)))
        candidates: list[Candidate] = []
        scores = []
        for example in exported:
            for choice in (example.chosen, example.rejected):
                if choice is not None:
                    candidates.append(choice.candidate)
                    scores.append(choice.score)
        if candidates:
            known = [score for score in scores if score is not None]
            mean = sum(known) / len(known) if known else None
            self._after.append({**vars(item_metrics(candidates)), "score": mean})

    @property
    def fingerprint(self) -> str:
        """Of all examples that were written, in their order: 32 hex digits."""
        return self._digest.hexdigest()

    @property
    def images(self) -> dict[Split, int]:
        """Different images of each split."""
        return {split: len(contents) for split, contents in self._images.items()}

    def diversity(self) -> tuple[tuple[Average, ...], tuple[Average, ...]]:
        """Averages over items: of all their candidates, and of those exported."""
        return averages(self._before), averages(self._after)

    def counts(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "items": self.items,
            "run_items": self.run_items,
            "outcomes": dict(self.outcomes),
            "candidates": self.candidates,
            "dropped": {reason: count for reason, count in self.dropped.items() if count},
            "examples": dict(self.examples),
            "images": dict(self.images),
            "judged": self.correct.total(),
            "not_correct": self.correct[False],
            "scored_by": dict(self.scored_by),
            "model_fingerprints": sorted(self.models),
        }
