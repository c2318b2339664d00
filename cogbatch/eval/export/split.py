"""On which side of a split an image lies. A hash of its own content: no other row has a say."""

from __future__ import annotations

import hashlib

from cogbatch.eval.export.example import Split

SCALE = 2**64


def side(group: str, *, validation: float, seed: int = 0) -> Split:
    """The split of everything that belongs to a group: always the same one, whatever else there is.

    Args:
        group: what must not be divided. validation: share of groups, from 0 to below 1, that go there.
    """
    digest = hashlib.blake2b(f"{seed}:{group}".encode(), digest_size=8).digest()
    return "validation" if int.from_bytes(digest) < validation * SCALE else "train"
