"""Names of the metrics that runs are compared by, so that they are checked before anything is run.

Names only, standard library only: what the metrics are is in cogbatch.eval.metrics.
"""

from __future__ import annotations

import re

from cogbatch.text import did_you_mean

# Of every run: the fields of cogbatch.eval.metrics.ItemMetrics.
METRICS = (
    "num_candidates",
    "unique_rate",
    "distinct_1",
    "distinct_2",
    "distinct_3",
    "self_bleu",
    "rouge_l_distance",
    "vendi_score",
    "logprob_per_token",
    "num_tokens",
)
# Of a run whose candidates are judged; pass@1 to pass@n too.
QUALITY_METRICS = ("score", "best_score", "correct", "distinct_correct")
# Engine seconds of an item: its own prefill, of every step of decoding the part that its rows (of the whole
# pool or all beams) are of all rows in that step, and the choice of its candidates. So the sum over all rows
# is the time that engines worked; loading, reading, writing and waiting do not count.
COST = "seconds_per_item"
PASS_AT_K = re.compile(r"pass@[1-9]\d*")
IN_A_SPEC = "add judge: {checker: ...} or {references: ...}"


def why_unknown(name: str, *, judged: bool, how: str = IN_A_SPEC) -> str | None:
    """Why no run has a metric of this name, in one phrase; None when one may have it.

    judged: whether candidates are judged. how: to ask for a judge where this is said.
    """
    if name in QUALITY_METRICS or PASS_AT_K.fullmatch(name):
        return None if judged else f"only a judge knows; {how}"
    known = (*METRICS, COST, *QUALITY_METRICS, "pass@1")
    if name in known:
        return None
    hint = did_you_mean(name, known) or f"expected {', '.join(known)}"
    return f"is no metric ({hint})"
