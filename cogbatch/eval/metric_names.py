"""Names of what the points of a sweep are compared by, checked before anything is run."""

from __future__ import annotations

import difflib
import re

from cogbatch.eval.metrics import METRICS, QUALITY_METRICS
from cogbatch.eval.pareto import COST

PASS_AT_K = re.compile(r"pass@[1-9]\d*")


def why_unknown(name: str, *, judged: bool) -> str | None:
    """Why no run has a metric of this name, in one phrase; None when one may have it.

    judged: whether candidates are judged.
    """
    if name in QUALITY_METRICS or PASS_AT_K.fullmatch(name):
        return None if judged else "only a judge knows; add judge: {checker: ...} or {references: ...}"
    known = (*METRICS, COST, *QUALITY_METRICS, "pass@1")
    if name in known:
        return None
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"expected {', '.join(known)}"
    return f"is no metric ({hint})"
