"""Products of many rows at once: what a row comes to depends on nothing but the row."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cogbatch.engine.products import RowBlocks, multiply


class Fickle(nn.Linear):
    """Adds in another order when it has many rows, as a library may."""

    many = 20

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if rows.shape[0] > self.many:
            return (rows.flip(1) @ self.weight.flip(1).T) * (1 + 1e-6)
        return rows @ self.weight.T


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def linear(inner: int, outer: int, dtype: torch.dtype, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inner, outer, bias=False).to(dtype).requires_grad_(False)


@settings(deadline=None, max_examples=40)
@given(
    inner=st.integers(8, 700),
    outer=st.integers(8, 900),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    count=st.integers(1, 130),
    threads=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_a_row_is_the_same_in_any_company(
    inner: int, outer: int, dtype: torch.dtype, count: int, threads: int, seed: int
) -> None:
    torch.set_num_threads(threads)
    layer = linear(inner, outer, dtype, seed)
    blocks = RowBlocks([layer], dtype=dtype)
    rows = torch.randn(count, inner).to(dtype)
    packed = torch.cat([rows, torch.zeros(blocks.padding(count), inner, dtype=dtype)])
    together = multiply(layer, packed, block_rows=blocks.largest)
    for row in {0, count // 2, count - 1}:
        alone = torch.zeros(8, inner, dtype=dtype)
        alone[row % 8] = rows[row]
        assert torch.equal(together[row], multiply(layer, alone, block_rows=blocks.largest)[row % 8])


def test_numbers_of_rows_that_change_the_order_are_found_out() -> None:
    layers = [linear(64, 32, torch.float32), Fickle(64, 48, bias=False).requires_grad_(False)]
    assert RowBlocks(layers[:1], dtype=torch.float32).largest > 16
    assert RowBlocks(layers, dtype=torch.float32).largest == 16  # 24 rows are too many


def test_where_nothing_more_is_proven_a_unit_is_multiplied_at_once() -> None:
    layer = Fickle(64, 48, bias=False).requires_grad_(False)
    layer.many = 8
    blocks = RowBlocks([layer], dtype=torch.float32)
    assert blocks.largest == 8
    assert torch.equal(
        multiply(layer, rows := torch.randn(24, 64), block_rows=8),
        torch.cat([layer(part) for part in rows.split(8)]),
    )


@pytest.mark.parametrize("rows", [1, 3, 8, 13, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_it_is_a_product(rows: int, dtype: torch.dtype) -> None:
    layer = linear(40, 24, dtype)
    states = torch.randn(rows, 40).to(dtype)
    expected = (states.double() @ layer.weight.double().T).to(dtype)
    torch.testing.assert_close(multiply(layer, states), expected)


@given(rows=st.integers(1, 500), unit=st.sampled_from([8, 64]))
def test_padding_fills_the_last_unit(rows: int, unit: int) -> None:
    padding = RowBlocks([linear(8, 8, torch.float32)], dtype=torch.float32, unit_rows=unit).padding(rows)
    assert 0 <= padding < unit
    assert (rows + padding) % unit == 0
