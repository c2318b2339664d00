"""Random numbers as a pure function of (seed, item id, purpose, step, stream): no state, no order.

Counter-based: Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") as numpy
implements it. Key: blake2b of seed and item id. Counter words: (vocabulary block, step, stream, purpose),
where a stream is a lane or the hash of a prefix.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from functools import cache

import numpy as np
import torch

_COUNTER_MODULUS = 1 << 256
_BELOW_ONE = 1 - 2.0**-24  # the float32 next to 1
_WORTH_A_THREAD = 8192  # words: 30 microseconds


class Purpose(IntEnum):
    """What a number is used for; the values are part of what a seed means and never change."""

    TOKEN = 0  # the next token of a lane
    PREFIX = 1  # the next token of a prefix; streams are prefix_stream
    OFFSET = 2  # what the lanes of arithmetic sampling share
    CODE = 3  # arithmetic sampling, once a lane is alone in its part of the distribution
    BRANCH = 4  # the next token of a branch; streams are prefix_stream of its opening


class ItemRandom:
    """All random numbers of one item.

    Args:
        seed: the run's seed, any integer.
        item_id: the request's id; equal ids with equal seeds share every number.
    """

    def __init__(self, seed: int, item_id: str) -> None:
        digest = hashlib.blake2b(
            f"{seed}\x00{item_id}".encode("utf-8", "surrogatepass"), digest_size=16
        ).digest()
        self._key = int.from_bytes(digest, "little")

    def words(self, size: int, *, purpose: Purpose, step: int, stream: int) -> np.ndarray:
        """[size] uint64, every bit random; word i comes from vocabulary block i // 4."""
        counter = (step << 64) | (stream << 128) | (int(purpose) << 192)
        # numpy steps the counter before it draws, so start one short of the block that is meant.
        bits = np.random.Philox(key=self._key, counter=(counter - 1) % _COUNTER_MODULUS)
        return bits.random_raw(size)

    def gumbel(self, size: int, *, purpose: Purpose, step: int, streams: Sequence[int]) -> torch.Tensor:
        """[len(streams), size] float32 standard Gumbel noise, one row a stream.

        -log(-log1p(-u)) with u in (0, 1): float32 resolves u near 0, where large noise (the winners) comes
        from, so the tail is exact. u is neither 0 nor 1: infinite noise would let a dropped token win.
        """

        def row(stream: int) -> np.ndarray:
            return _to_float32(self.words(size, purpose=purpose, step=step, stream=stream))

        threads = torch.get_num_threads() if size >= _WORTH_A_THREAD else 1
        rows = map(row, streams) if threads == 1 else _pool(threads).map(row, streams)
        return _gumbel(torch.from_numpy(np.stack(list(rows))))

    def draw(
        self, logprobs: torch.Tensor, *, purpose: Purpose, step: int, streams: Sequence[int]
    ) -> torch.Tensor:
        """[len(streams)] tokens, one draw a stream, by Gumbel-max. logprobs: [1 or len(streams), V]."""
        noise = self.gumbel(logprobs.shape[1], purpose=purpose, step=step, streams=streams)
        return noise.to(logprobs.device).add_(logprobs).max(-1).indices

    def uniform(self, *, purpose: Purpose, step: int, stream: int) -> float:
        """A number in [0, 1), uniform with 53 bits."""
        return float(self.words(1, purpose=purpose, step=step, stream=stream)[0] >> np.uint64(11)) * 2.0**-53


def prefix_stream(tokens: Sequence[int]) -> int:
    """The stream of a token prefix: 64 bits of blake2b, so that it depends on nothing but the tokens."""
    data = np.asarray(tokens, dtype="<i8").tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def gumbel_of_words(words: np.ndarray) -> torch.Tensor:
    """uint64 words -> float32 Gumbel noise of the same shape, always finite."""
    return _gumbel(torch.from_numpy(_to_float32(words)))


def _gumbel(floats: torch.Tensor) -> torch.Tensor:
    """Words as float32, whose memory it takes, to noise."""
    return floats.mul_(-(2.0**-64)).clamp_(min=-_BELOW_ONE).log1p_().neg_().log_().neg_()


def _to_float32(words: np.ndarray) -> np.ndarray:
    """The float32 nearest to each word, its last bit set: not 0.

    By way of int64, for which processors have instructions: half of a word, with its last bit set in place of
    those that are lost, rounds as the word does. Words below 2 ** 27 lack the bits for that.
    """
    half = words >> np.uint64(1)
    half |= np.uint64(1)
    floats = half.view(np.int64).astype(np.float32)
    floats *= 2.0
    if floats.min() < 2.0**27:
        small = floats < 2.0**27
        floats[small] = (words[small] | np.uint64(1)).astype(np.float32)
    return floats


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="cogbatch-noise")
