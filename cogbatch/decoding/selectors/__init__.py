"""The selectors that come with cogbatch: rules on a ranked pool, one to a file."""

from __future__ import annotations

from collections.abc import Mapping

from cogbatch.decoding.selector import Selector
from cogbatch.decoding.selectors.dpp import greedy_map
from cogbatch.decoding.selectors.k_medoids import k_medoids
from cogbatch.decoding.selectors.mbr import minimum_bayes_risk
from cogbatch.decoding.selectors.mmr import marginal_relevance
from cogbatch.decoding.selectors.rule import RuleSelector
from cogbatch.decoding.selectors.spread import quality_spread
from cogbatch.decoding.selectors.top import best_quality

_SIMILARITY = frozenset({"similarity", "embedding_model"})
_QUALITY = frozenset({"quality"})
_TRADE_OFF = _SIMILARITY | _QUALITY | {"quality_weight"}

SELECTORS: Mapping[str, Selector] = {
    "dpp": RuleSelector(greedy_map, uses=_TRADE_OFF),
    "mmr": RuleSelector(marginal_relevance, uses=_TRADE_OFF),
    "k-medoids": RuleSelector(k_medoids, uses=_TRADE_OFF),
    "mbr": RuleSelector(minimum_bayes_risk, uses=_SIMILARITY),
    "top": RuleSelector(best_quality, uses=_QUALITY),
    "spread": RuleSelector(quality_spread, uses=_QUALITY),
}
