"""Laws of what fits where, with the figures of CogVLM 17B worked out by hand."""

from __future__ import annotations

import inspect
import re

import pytest
import torch

from cogbatch.engine.engine import Engine
from cogbatch.engine.fit import CARDS, Footprint, fit, fit_cards, footprint
from cogbatch.engine.memory import MAX_ROWS
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.types import GenerationParams, PortfolioMember, Quantization
from tests.bench.memory import DOCS, between, fits_table
from tests.tiny import tiny_config

GIB = 2**30
PARAMS = GenerationParams(num_candidates=8, max_new_tokens=128)


def need(**changes: int) -> Footprint:
    values = {"weight_bytes": 20 * GIB, "working_bytes": GIB, "token_bytes": GIB // 1024, "image_tokens": 900}
    values |= {"text_tokens": 24, "rows": 2, "new_tokens": 100, "expanded_tokens": 2 * (924 + 50)}
    return Footprint(**(values | changes))


def test_an_item_of_17b_shares_its_prompt_among_its_rows() -> None:
    """1,228 + 20 tokens once and 8 * 128 new ones, of half a MiB; against 8 * (1,228 + 20 + 128)."""
    found = footprint(CogVLMConfig(), torch.bfloat16, PARAMS, text_tokens=20)
    assert found.item_bytes == (1248 + 1024) * 2**19
    assert found.expanded_item_bytes == 8 * (1248 + 128) * 2**19
    assert found.rows == 8


def test_keys_and_values_at_32_candidates_are_at_most_a_sixth_of_the_expanded_size() -> None:
    """1,248 + 32 * 64 tokens against 32 * 1,312, 12.7 times as many."""
    params = GenerationParams(num_candidates=32, max_new_tokens=64)
    found = footprint(CogVLMConfig(), torch.bfloat16, params, text_tokens=20)
    assert found.item_bytes * 6 <= found.expanded_item_bytes
    assert found.expanded_item_bytes == 32 * 1312 * 2**19


def test_text_only_items_need_no_image() -> None:
    found = footprint(tiny_config(), torch.float32, PARAMS, text_tokens=20, has_image=False)
    assert found.item_bytes == (20 + 8 * 128) * found.token_bytes


def test_new_tokens_end_where_the_context_ends() -> None:
    params = GenerationParams(num_candidates=2, max_new_tokens=10_000)
    found = footprint(tiny_config(), torch.float32, params, text_tokens=92)  # 512 positions, 19 of an image
    assert found.new_tokens == 2 * (512 - 19 - 92)


def test_runs_of_a_portfolio_share_the_image_alone() -> None:
    members = (PortfolioMember(), PortfolioMember(params={"max_new_tokens": 10}))
    params = GenerationParams(num_candidates=4, strategy="portfolio", portfolio=members, max_new_tokens=30)
    found = footprint(tiny_config(), torch.float32, params, text_tokens=7)
    assert (found.image_tokens, found.text_tokens, found.rows) == (19, 14, 4)
    assert found.new_tokens == 2 * 30 + 2 * 10
    assert found.expanded_tokens == 2 * (19 + 7 + 30) + 2 * (19 + 7 + 10)


def test_items_share_what_weights_and_working_memory_leave() -> None:
    """Of 28 GiB 8 are left; a tenth stays, 1 GiB is worked with, and an item takes 1 GiB."""
    found = fit(need(), device="card", memory_bytes=29 * GIB, left_bytes=28 * GIB, device_type="cuda")
    assert (found.items, found.problem) == (6, None)
    on_cpu = fit(need(), device="here", memory_bytes=29 * GIB, left_bytes=28 * GIB, device_type="cpu")
    assert on_cpu.items == 3


def test_rows_decoded_together_bound_the_items_too() -> None:
    many = {"memory_bytes": 999 * GIB, "left_bytes": 999 * GIB, "device_type": "cuda"}
    assert fit(need(), device="card", **many).items == MAX_ROWS // 2
    assert fit(need(rows=100), device="card", **many).items == 1  # the first always runs


@pytest.mark.parametrize(
    ("left_gib", "problem"),
    [
        (10, r"^the weights take 21\.5 GB$"),
        (22, r"^one item needs 1\.1 GB of keys and values, beside the weights .* 0\.5 GB are left$"),
    ],
)
def test_what_does_not_fit_says_why(left_gib: int, problem: str) -> None:
    found = fit(need(), device="c", memory_bytes=30 * GIB, left_bytes=left_gib * GIB, device_type="cuda")
    assert found.items == 0
    assert found.problem is not None
    assert re.search(problem, found.problem)


def test_17b_needs_40_gb_in_bfloat16_24_in_int8_and_16_in_nf4() -> None:
    smallest = {}
    for kind in (None, Quantization("int8"), Quantization("nf4")):
        found = footprint(CogVLMConfig(), torch.bfloat16, PARAMS, quantization=kind, text_tokens=20)
        smallest[kind and kind.type] = next(card.device for card in fit_cards(found) if card.items)
    assert smallest == {None: "40 GB", "int8": "24 GB", "nf4": "16 GB"}


def test_larger_cards_hold_no_fewer_items() -> None:
    sizes = [card.mib for card in CARDS]
    assert sizes == sorted(set(sizes))
    items = [card.items for card in fit_cards(need())]
    assert items == sorted(items)


def test_no_card_has_more_than_it_is_sold_with() -> None:
    for card in CARDS:
        sold = int(card.name.split()[0])
        assert 0.92 * sold <= card.mib / 1024 <= 1.01 * sold


def test_plan_and_engine_mean_the_same_number_of_rows() -> None:
    for call in (Engine.__init__, Engine.from_pretrained):
        assert inspect.signature(call).parameters["max_rows"].default == MAX_ROWS


def test_the_table_in_the_docs_is_the_computed_one() -> None:
    written = between(DOCS.read_text(encoding="utf-8"), "fits")
    assert written == list(fits_table()), "python -m tests.bench.memory --write makes it"
