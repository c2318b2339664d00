"""Presets are valid at any k, keep to the rules of their use, and are documented as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cogbatch.decoding.params import check_params
from cogbatch.decoding.presets import PRESETS, Preset, preset, preset_values
from cogbatch.decoding.registry import SELECTORS, STRATEGIES, strategy_named
from cogbatch.decoding.warpers import WARPER_FIELDS
from cogbatch.types import GenerationParams

DOCS = (Path(__file__).parents[2] / "docs/strategies.md").read_text()


def row(name: str, of: Preset) -> str:
    values = ", ".join(f"{key}: {value}" for key, value in of.values.items())
    return f"| `{name}` | {of.when} | `{values}` | {of.why} |"


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("k", [None, 1, 2, 16])
def test_a_preset_is_valid_at_any_k(name: str, k: int | None) -> None:
    check_params(preset(name) if k is None else preset(name, num_candidates=k))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_asks_for_several_candidates(name: str) -> None:
    assert preset(name).num_candidates > 1


def test_what_is_given_overrides_a_preset_and_the_rest_stays() -> None:
    params = preset("training-data", temperature=0.7, num_candidates=3, seed=5)
    assert (params.temperature, params.num_candidates, params.seed) == (0.7, 3, 5)
    assert params.selector == "dpp"
    assert preset("training-data").temperature != 0.7


def test_a_preset_is_only_its_values() -> None:
    assert preset("sat-beam") == GenerationParams(**preset_values("sat-beam"))


def test_values_of_a_preset_are_a_copy() -> None:
    preset_values("evaluation")["temperature"] = 9.0
    assert preset("evaluation").temperature != 9.0


def test_evaluation_keeps_every_draw() -> None:
    """Nothing selected, deduplicated or drawn anew: pass@k counts independent draws."""
    params = preset("evaluation")
    assert params.selector is None
    assert params.resample_loops == 0
    assert params.strategy == "sample"
    assert not strategy_named(params.strategy).distinct


def test_training_data_draws_more_than_it_keeps_and_loops_anew_a_bounded_number_of_times() -> None:
    params = preset("training-data")
    assert params.selector is not None
    assert 1 <= params.resample_loops <= 5


def test_an_unknown_preset_or_parameter_is_named() -> None:
    names = "training-data, evaluation, short-answers, preference-pairs, sat-beam"
    with pytest.raises(ValueError, match=f"unknown preset 'trainingdata': expected one of {names}"):
        preset("trainingdata")
    with pytest.raises(ValueError, match="preset 'evaluation': no generation parameter is called temprature"):
        preset("evaluation", temprature=1.0)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_documented_as_it_is(name: str) -> None:
    assert row(name, PRESETS[name]) in DOCS.splitlines()


def test_every_selector_is_documented_with_what_it_reads() -> None:
    section = DOCS.partition("\n## Selectors\n")[2].partition("\n#")[0]
    rows = dict(re.findall(r"^\| `([\w-]+)` \| .* \| (.*?) \|$", section, flags=re.MULTILINE))
    assert sorted(rows) == sorted(SELECTORS)
    for name, reads in rows.items():
        assert set(re.findall(r"`(\w+)`", reads)) == SELECTORS[name].uses - {"embedding_model"}, name


def test_every_strategy_is_documented_with_what_it_reads() -> None:
    section = DOCS.partition("\n## Strategies\n")[2].partition("\n#")[0]
    rows = dict(re.findall(r"^\| `([\w-]+)` \| .* \|(.*?)\|$", section, flags=re.MULTILINE))
    assert set(rows) == {*STRATEGIES, "portfolio"}
    for name, strategy in STRATEGIES.items():
        reads = set(re.findall(r"`(\w+)`", rows[name]))
        if rows[name].strip().startswith("as `beam`"):
            reads |= STRATEGIES["beam"].uses - {"beam"}
        assert reads - {"beam"} | WARPER_FIELDS >= strategy.uses, name
        assert reads - {"beam"} <= strategy.uses, name
    warpers = section.partition("The warpers, in this order")[2].partition(".")[0]
    assert set(re.findall(r"`(\w+)`", warpers)) == WARPER_FIELDS


def test_a_preset_gives_way_where_another_strategy_or_selector_is_asked_for() -> None:
    beam = preset("training-data", strategy="beam", selector=None)
    assert (beam.strategy, beam.selector, beam.resample_loops) == ("beam", None, 0)
    for name in PRESETS:
        for strategy in STRATEGIES:
            if strategy != "greedy":
                check_params(preset(name, strategy=strategy, selector=None, num_candidates=2))
    with pytest.raises(ValueError, match="does not use resample_loops"):
        check_params(preset("training-data", strategy="beam", resample_loops=1))
