"""The best by quality alone: log-probability per token."""

from __future__ import annotations

from cogbatch.decoding.selectors.pool import RankedPool


def best_quality(pool: RankedPool, k: int) -> list[tuple[int, float]]:
    """The first k of the ranked pool; the score is the quality, in nats per token."""
    return [(place, float(pool.quality[place])) for place in range(k)]
