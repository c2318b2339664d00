"""The shim and the merge against plain attention."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cogbatch.engine.attention import attention_by_matmul, attention_with_lse, merge, weigh

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


def random_states(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
def test_fused_attention_equals_the_formula(dtype: torch.dtype, causal: bool) -> None:
    query, key, value = (random_states(2, 3, 5, 16, dtype=dtype, seed=i) for i in range(3))
    context, lse = attention_with_lse(query, key, value, scale=0.25, causal=causal)
    expected, expected_lse = attention_by_matmul(
        query.float(), key.float(), value.float(), scale=0.25, causal=causal
    )
    torch.testing.assert_close(context.float(), expected, atol=TOLERANCE[dtype], rtol=0)
    torch.testing.assert_close(lse, expected_lse, atol=TOLERANCE[dtype], rtol=0)


def test_fallback_equals_torch() -> None:
    query, key, value = (random_states(1, 2, 7, 8, seed=i) for i in range(3))
    context, _ = attention_by_matmul(query, key, value, scale=8**-0.5, causal=True)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(context, expected)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.1, 1.0, 5.0]))
def test_merge_of_two_parts_equals_attention_over_both(first: int, second: int, spread: float) -> None:
    query = random_states(2, 3, 4, 8, seed=0) * spread
    key, value = (random_states(2, 3, first + second, 8, seed=i) for i in (1, 2))
    parts = [
        attention_with_lse(query, key[:, :, part], value[:, :, part], scale=1.0)
        for part in (slice(0, first), slice(first, None))
    ]
    merged, whole = merge(*parts), attention_by_matmul(query, key, value, scale=1.0)
    torch.testing.assert_close(merged, whole, atol=2e-5, rtol=0)
    assert torch.equal(merged[0], weigh(*parts))
