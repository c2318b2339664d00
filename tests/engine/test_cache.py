"""Prefixes that are shared, suffixes that move: equal to attention over all keys in one place."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cogbatch.engine.attention import attention_by_matmul
from cogbatch.engine.cache import Geometry, ItemCache, Prefix

LAYERS, KV_HEADS, GROUPS, SIZE = 2, 2, 3, 8
GEOMETRY = Geometry(LAYERS, KV_HEADS, SIZE, torch.float32, torch.device("cpu"))
MODULES = [
    SimpleNamespace(layer_idx=index, scaling=SIZE**-0.5, num_key_value_groups=GROUPS)
    for index in range(LAYERS)
]


def prefix(length: int, *behind: Prefix, seed: int = 0) -> Prefix:
    made = Prefix(GEOMETRY, length, behind=behind)
    made.states.copy_(torch.randn(made.states.shape, generator=torch.Generator().manual_seed(seed)))
    made.next_position = length
    return made


def append(cache: ItemCache, token: float) -> None:
    """A token for every row, whose keys and values tell row and token apart."""
    rows = torch.arange(cache.num_rows)[:, None, None] + 100 * token
    states = rows.float().expand(cache.num_rows, KV_HEADS, SIZE) / 100
    query = torch.randn(cache.num_rows, KV_HEADS * GROUPS, SIZE)
    for module in MODULES:
        cache.attend(module, query, states, -states)
    cache.end_step()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), min_size=1, max_size=12))
def test_rows_become_what_their_parents_were(moves: list[list[int]]) -> None:
    cache = ItemCache(GEOMETRY, prefix(3), max_new_tokens=12)
    before = cache.prefixes[0].states.clone()
    cache.move_rows([0] * len(moves[0]))
    for token, parents in enumerate(moves):
        append(cache, token)
        parents = [parent % cache.num_rows for parent in parents]
        expected = cache.suffix[:, :, parents].clone()
        cache.move_rows(parents)
        assert cache.num_rows == len(parents)
        assert torch.equal(cache.suffix, expected)
    assert torch.equal(cache.prefixes[0].states, before)  # prefixes never move


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("lengths", [(7,), (7, 4), (1, 1)])
def test_attention_equals_that_over_all_keys(lengths: tuple[int, ...], rows: int, tokens: int) -> None:
    chain: list[Prefix] = []
    for seed, length in enumerate(lengths):
        chain.append(prefix(length, *chain, seed=seed))
    cache = ItemCache(GEOMETRY, chain[-1], max_new_tokens=tokens)
    cache.move_rows([0] * rows)
    module = MODULES[1]
    for token in range(tokens):
        query = torch.randn(rows, KV_HEADS * GROUPS, SIZE)
        key, value = torch.randn(2, rows, KV_HEADS, SIZE)
        context = cache.attend(module, query, key, value)
        cache.end_step()
        keys, values = (
            torch.cat([*(p.states[1, i].expand(rows, -1, -1, -1) for p in chain), cache.suffix[1, i]], dim=2)
            for i in (0, 1)
        )
        whole, _ = attention_by_matmul(
            query[:, :, None],
            keys.repeat_interleave(GROUPS, 1),
            values.repeat_interleave(GROUPS, 1),
            scale=module.scaling,
        )
        torch.testing.assert_close(context, whole[:, :, 0].flatten(1))
        assert cache.next_position == lengths[-1] + token + 1


def test_keys_and_values_of_32_rows_are_a_sixth_of_the_expanded_size_at_most() -> None:
    """The bench model's sizes: 1,228 image tokens, 30 of a prompt, 64 new ones."""
    rows, new_tokens = 32, 64
    image = prefix(1228)
    cache = ItemCache(GEOMETRY, prefix(30, image), max_new_tokens=new_tokens)
    cache.move_rows([0] * rows)
    for token in range(new_tokens):
        append(cache, token)
        if token + 1 < new_tokens:
            cache.move_rows(range(rows))
    held = cache._suffix.nbytes + sum(part.states.nbytes for part in cache.prefixes)
    expanded = LAYERS * 2 * rows * KV_HEADS * (1228 + 30 + new_tokens) * SIZE * 4
    assert held * 6 <= expanded


def test_two_items_share_the_memory_of_their_image() -> None:
    image = prefix(9)
    one, other = (ItemCache(GEOMETRY, prefix(2, image), max_new_tokens=4) for _ in range(2))
    assert one.prefixes[0].states.data_ptr() == other.prefixes[0].states.data_ptr()
    assert one.prefixes[1].states.data_ptr() != other.prefixes[1].states.data_ptr()


def test_a_restart_leaves_the_prompt() -> None:
    cache = ItemCache(GEOMETRY, prefix(3), max_new_tokens=5)
    cache.move_rows([0, 0])
    append(cache, 1)
    cache.restart()
    assert (cache.num_rows, cache.filled, cache.next_position) == (1, 0, 3)
    cache.move_rows([0, 0, 0])
    append(cache, 2)
    assert cache.suffix.shape[2] == 3
