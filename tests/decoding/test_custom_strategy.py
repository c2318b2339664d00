"""The example package of docs/custom_strategy: installed as a user does, named, run, and up to every law."""

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cogbatch import Engine, GenerationParams, GenerationRequest
from cogbatch.decoding.conformance import LAWS
from cogbatch.decoding.params import check_params
from cogbatch.decoding.registry import selector_names, strategy_named, strategy_names
from tests.tiny import ByteTokenizer, tiny_model

EXAMPLE = Path(__file__).parents[2] / "docs" / "custom_strategy"


@pytest.fixture(scope="module", autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Installs the example, by pip and without network, into a directory of its own."""
    folder = tmp_path_factory.mktemp("custom_strategy")
    shutil.copytree(EXAMPLE, folder / "source")  # building leaves files behind
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*pip, *offline, "--target", folder / "site", folder / "source"],
        check=True,
        capture_output=True,
        timeout=120,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder / "site")
        yield


def test_its_names_are_known() -> None:
    assert "first-tokens" in strategy_names()
    assert "shortest" in selector_names()


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_it_conforms(law: Any) -> None:
    law(strategy_named("first-tokens"), {})


def test_its_strategy_and_its_selector_run_in_the_engine() -> None:
    engine = Engine(tiny_model(), ByteTokenizer())
    request = GenerationRequest("a", None, "why?")
    params = GenerationParams(
        num_candidates=3, strategy="first-tokens", strategy_options={"skip": 1}, max_new_tokens=8
    )
    (output,) = engine.generate([request], params)
    assert output.error is None
    assert len({candidate.token_ids[0] for candidate in output.candidates}) == 3
    assert {candidate.source for candidate in output.candidates} == {"first-tokens"}
    greedy = GenerationParams(strategy="greedy", max_new_tokens=8)
    (best,) = engine.generate([request], greedy)
    assert best.candidates[0].token_ids not in {candidate.token_ids for candidate in output.candidates}

    drawn = GenerationParams(num_candidates=6, max_new_tokens=8, min_new_tokens=2)
    (pool,) = engine.generate([request], drawn)
    chosen = GenerationParams(
        num_candidates=2, pool_size=6, selector="shortest", max_new_tokens=8, min_new_tokens=2
    )
    (output,) = engine.generate([request], chosen)
    shortest = sorted({candidate.text for candidate in pool.candidates}, key=lambda text: (len(text), text))
    assert [candidate.text for candidate in output.candidates] == shortest[:2]


def test_its_own_check_is_heard() -> None:
    with pytest.raises(ValueError, match=r"strategy_options has \['skp'\]"):
        check_params(GenerationParams(strategy="first-tokens", strategy_options={"skp": 1}))
    with pytest.raises(ValueError, match="strategy 'first-tokens' does not use top_p"):
        check_params(GenerationParams(strategy="first-tokens", top_p=0.5))


def test_the_example_is_short() -> None:
    assert len((EXAMPLE / "first_tokens.py").read_text().splitlines()) <= 45
    groups = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]["entry-points"]
    assert set(groups) == {"cogbatch.strategies", "cogbatch.selectors"}
