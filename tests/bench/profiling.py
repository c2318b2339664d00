"""Where the engine's time goes, operator by operator, within the stages of one run."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile

from tests.bench.cases import METHODS, WARM_UP, Case
from tests.bench.setting import Setting

_LINES = 12  # of each stage
_OUTSIDE = "choosing"  # neither prefill nor decode step


def profile(setting: Setting, case: Case, *, threads: int) -> str:
    """A table of operators' own time by stage, in one run of the case after a warm one."""
    torch.set_num_threads(threads)
    run = METHODS[case.method](setting, case)
    run(min(setting.new_tokens, 3), WARM_UP)
    with torch_profile(activities=[ProfilerActivity.CPU]) as profiler:
        run(setting.new_tokens, 0)
    own: Counter[tuple[str, str]] = Counter()
    calls: Counter[tuple[str, str]] = Counter()
    for event in profiler.events() or []:
        key = stage_of(event), event.name
        own[key] += event.self_cpu_time_total
        calls[key] += 1
    return table(own, calls)


def stage_of(event: Any) -> str:
    """The stage that an event belongs to."""
    while event is not None:
        if event.name.startswith("stage "):
            return str(event.name.removeprefix("stage "))
        event = event.cpu_parent
    return _OUTSIDE


def table(own: Counter[tuple[str, str]], calls: Counter[tuple[str, str]]) -> str:
    """Microseconds of own time by (stage, operator), the largest of each stage.

    A stage's own line is what Python and dispatch take between operators. Outside of stages nothing but
    operators is seen.
    """
    stages: Counter[str] = Counter()
    for (stage, _), microseconds in own.items():
        stages[stage] += microseconds
    total = sum(stages.values())
    lines = ["stage      operator                                              calls        ms   of all"]
    for stage, microseconds in stages.most_common():
        lines.append(f"{stage:10} {'':50} {'':8} {microseconds / 1e3:9.1f} {microseconds / total:7.1%}")
        here = Counter({name: value for (of, name), value in own.items() if of == stage})
        for name, value in here.most_common(_LINES):
            shown = "between operators" if name.startswith("stage ") else name
            count = calls[stage, name]
            lines.append(f"{'':10} {shown[:50]:50} {count:8} {value / 1e3:9.1f} {value / total:7.1%}")
    return "\n".join(lines)
