"""What the cases came to, as figures: rates, the roofline, and the targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.bench.cases import Case, Found
from tests.bench.roofline import Stage, Work, stages
from tests.bench.setting import Setting

Results = Mapping[Case, Found]
JUDGED_K, TOGETHER = 8, 4  # candidates and items at a time that the targets are about


def rate(found: Found) -> float:
    """Tokens a second."""
    return float(found["tokens"] / found["seconds"])


def decode_rate(found: Found) -> float:
    """The same without prefill."""
    prefill = sum(seconds for stage, seconds in found["stages"].items() if stage != "decode")
    return float(found["tokens"] / (found["seconds"] - prefill))


@dataclass(frozen=True)
class Line:
    """A stage of the roofline, all items together.

    Args:
        measured_s: the engine's; None where only that of a larger stage is known.
    """

    name: str
    operations: int
    bytes: int
    ideal_s: float
    measured_s: float | None


@dataclass(frozen=True)
class Roofline:
    """What the work of a case needs at least, against the engine's time.

    Args:
        lines: vision, image, text, decode, choosing. inside: the parts of decode.
    """

    case: Case
    lines: tuple[Line, ...]
    inside: tuple[Line, ...]
    seconds: float
    copy_bytes_per_s: float

    @property
    def ideal_s(self) -> float:
        return sum(line.ideal_s for line in self.lines)

    @property
    def fraction(self) -> float:
        return self.ideal_s / self.seconds


def work_of(setting: Setting, case: Case) -> Work:
    """What the items of a case come to, an image each."""
    texts = tuple(setting.text_tokens(item) for item in range(case.items))
    return Work(setting.config, texts, case.k, setting.new_tokens)


def roofline(setting: Setting, case: Case, engine: Found, products: Found) -> Roofline:
    """`engine` and `products` are what the two methods came to on the case."""
    measured = dict(engine["stages"])
    measured["choosing"] = engine["seconds"] - sum(measured.values())
    copy = products["copy_bytes_per_s"]

    def line(name: str, parts: list[Stage], measured_s: float | None) -> Line:
        return Line(
            name,
            sum(stage.operations for stage in parts),
            sum(stage.bytes for stage in parts),
            sum(stage.ideal_s(products["products_s"][stage.name], copy) for stage in parts),
            measured_s,
        )

    all_stages = stages(work_of(setting, case))
    lines = [
        line(part, [stage for stage in all_stages if stage.part == part], seconds)
        for part, seconds in measured.items()
    ]
    inside = [line(stage.name, [stage], None) for stage in all_stages if stage.part == "decode"]
    return Roofline(case, tuple(lines), tuple(inside), engine["seconds"], copy)


@dataclass(frozen=True)
class Target:
    """At least `least` is asked for."""

    name: str
    value: float
    least: float

    @property
    def is_met(self) -> bool:
        return self.value >= self.least


def targets(results: Results, rooflines: list[Roofline]) -> list[Target]:
    """Those of which the cases were run, in the order in which they are judged."""
    found: list[Target] = []

    def add(name: str, least: float, value: float | None) -> None:
        if value is not None:
            found.append(Target(name, value, least))

    k, together = JUDGED_K, Case("engine", JUDGED_K, TOGETHER)
    judged = [line.fraction for line in rooflines if line.case == Case("products", k, TOGETHER)]
    add("share of the roofline", 0.6, judged[0] if judged else None)
    add("times generate, item by item", 8, ratio(results, together, Case("generate", k)))
    add("times k separate calls", 9, ratio(results, together, Case("calls", k)))
    add("keys and values at k = 32: expanded over shared", 6, kv_ratio(results, 32))
    add("4 items over 1 item, tokens/s", 1, ratio(results, together, Case("engine", k)))
    ending, stream = Case("ending", k, TOGETHER), Case("stream", k, TOGETHER)
    add("rows that end at random over rows that do not, tokens/s", 0.8, ratio(results, ending, stream))
    if ending in results:
        value = decode_rate(results[ending]) / decode_rate(results[stream])
        add("the same, without prefill", 0.8, value)
    return found


def ratio(results: Results, ours: Case, theirs: Case) -> float | None:
    """Tokens a second of one case over those of another; None if one was not run."""
    if ours not in results or theirs not in results:
        return None
    return rate(results[ours]) / rate(results[theirs])


def kv_ratio(results: Results, k: int) -> float | None:
    """Bytes of keys and values that the expanded cache allocates, over the engine's; one item."""
    expanded, engine = results.get(Case("expanded", k)), results.get(Case("engine", k))
    return None if expanded is None or engine is None else expanded["kv_bytes"] / engine["kv_bytes"]
