"""The counter-based generator: published vectors, and independence of everything but its arguments."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from cogbatch.decoding.rng import ItemRandom, Purpose, gumbel_of_words, prefix_stream

ARGUMENTS = {"purpose": Purpose.TOKEN, "step": 3, "stream": 5}


def test_numpy_philox_gives_the_published_vectors() -> None:
    """Known answers of Philox4x64-10 for all-zero and all-one input (Random123's kat_vectors)."""
    ones = (1 << 256) - 1
    zero = np.random.Philox(key=0, counter=ones).random_raw(4)  # numpy steps the counter before it draws
    full = np.random.Philox(key=(1 << 128) - 1, counter=ones - 1).random_raw(4)
    assert [f"{word:016x}" for word in zero] == [
        "16554d9eca36314c",
        "db20fe9d672d0fdc",
        "d7e772cee186176b",
        "7e68b68aec7ba23b",
    ]
    assert [f"{word:016x}" for word in full] == [
        "87b092c3013fe90b",
        "438c3c67be8d0224",
        "9cc7d7c69cd777b6",
        "a09caebf594f0ba0",
    ]


@given(st.integers(1, 60), st.integers(1, 60))
def test_a_longer_draw_starts_with_the_shorter_one(short: int, long: int) -> None:
    random = ItemRandom(0, "item")
    assert random.words(max(short, long), **ARGUMENTS)[: min(short, long)].tolist() == (
        random.words(min(short, long), **ARGUMENTS).tolist()
    )


def test_every_argument_changes_every_word() -> None:
    base = ItemRandom(0, "item").words(64, **ARGUMENTS)
    others = [
        ItemRandom(1, "item").words(64, **ARGUMENTS),
        ItemRandom(0, "other").words(64, **ARGUMENTS),
        ItemRandom(0, "item").words(64, **{**ARGUMENTS, "step": 4}),
        ItemRandom(0, "item").words(64, **{**ARGUMENTS, "stream": 6}),
    ]
    for other in others:
        assert not (base == other).any()


def test_steps_and_streams_do_not_overlap_within_a_vocabulary() -> None:
    """A draw of 128,256 words takes 32,064 counter blocks; the next step begins in another counter word."""
    random = ItemRandom(0, "item")
    words = np.concatenate(
        [random.words(4096, purpose=Purpose.TOKEN, step=s, stream=lane) for s in (0, 1) for lane in (0, 1)]
    )
    assert len(np.unique(words)) == len(words)


def test_numbers_are_pinned() -> None:
    """A change here changes what every seed means: raise NUMERICS_VERSION and say so."""
    assert ItemRandom(0, "item").words(2, purpose=Purpose.TOKEN, step=0, stream=0).tolist() == PINNED


def test_gumbel_noise_has_its_distribution() -> None:
    """Kolmogorov-Smirnov against exp(-exp(-x)) on 40,000 numbers; one fair seed in 1,000 fails."""
    noise = ItemRandom(7, "item").gumbel(10_000, purpose=Purpose.TOKEN, step=0, streams=[0, 1, 2, 3])
    assert noise.dtype == torch.float32
    values = np.sort(noise.double().numpy().ravel())
    ranks = np.arange(1, values.size + 1) / values.size
    distance = np.abs(np.exp(-np.exp(-values)) - ranks).max()
    assert distance < 1.95 / np.sqrt(values.size)
    assert np.isfinite(values).all()


def test_noise_is_finite_at_both_ends() -> None:
    """Infinite noise would let a token that a warper dropped win, or make it NaN."""
    noise = gumbel_of_words(np.array([0, 1, 2**63, 2**64 - 2**39, 2**64 - 1], dtype=np.uint64))
    assert noise.isfinite().all()
    assert noise.tolist() == sorted(noise.tolist(), reverse=True)


def test_noise_is_that_of_the_nearest_float_of_each_word() -> None:
    """Bit for bit, small words too: what a seed means does not depend on how words are converted."""
    powers = [2**e + d for e in range(1, 64) for d in (-1, 0, 1, 2 ** max(e - 25, 0))]
    words = np.array([0, 1, *powers, 2**64 - 1], dtype=np.uint64)
    words = np.concatenate([words, ItemRandom(0, "item").words(100_000, **ARGUMENTS)])
    uniform = torch.from_numpy((words | np.uint64(1)).astype(np.float32)) * 2.0**-64
    exact = -(-torch.log1p(-uniform.clamp(max=1 - 2.0**-24))).log()
    assert gumbel_of_words(words).equal(exact)


def test_threads_change_no_number() -> None:
    random = ItemRandom(0, "item")
    streams, size = [3, 1, 2**63], 20_000
    one = torch.cat(
        [gumbel_of_words(random.words(size, purpose=Purpose.TOKEN, step=0, stream=s)) for s in streams]
    )
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            together = random.gumbel(size, purpose=Purpose.TOKEN, step=0, streams=streams)
            assert together.flatten().equal(one)
    finally:
        torch.set_num_threads(threads)


def test_any_id_has_its_numbers() -> None:
    assert ItemRandom(0, "\ud800").words(1, **ARGUMENTS) != ItemRandom(0, "").words(1, **ARGUMENTS)


def test_uniform_numbers_and_prefix_streams_are_pinned() -> None:
    random = ItemRandom(0, "item")
    assert random.uniform(purpose=Purpose.TOKEN, step=0, stream=0) == (PINNED[0] >> 11) / 2**53
    assert prefix_stream([]) == 0xB4B2797457A0A6E4
    assert prefix_stream([1, 2]) != prefix_stream([2, 1])


PINNED = [17039309682795723706, 3584060443640070618]
