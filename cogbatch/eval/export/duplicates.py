"""Whether an example says what an earlier one said. Keeps 16-byte hashes; texts only in the index of near."""

from __future__ import annotations

import hashlib

from cogbatch.eval.export.example import Example
from cogbatch.eval.export.similar import NearTexts
from cogbatch.text import normalise
from cogbatch.types import Dedupe


class Duplicates:
    """The examples so far. About 100 bytes each, with near about 6 KB."""

    def __init__(self, dedupe: Dedupe, *, near: float, with_prompt: bool = True) -> None:
        """with_prompt: whether two examples with other prompts differ, which captions do not have."""
        self._dedupe = dedupe
        self._with_prompt = with_prompt
        pair = "the same image, prompt and text" if with_prompt else "the same image and text"
        self._reason = pair if dedupe == "pairs" else "the same text"
        self._seen: set[bytes] = set()
        self._near = NearTexts(near) if dedupe == "near" else None

    def reason(self, example: Example) -> str | None:
        """Why the example is a duplicate; None when it is not, and it is remembered then."""
        if self._dedupe == "none":
            return None
        key = self._key(example)
        if key in self._seen:
            return self._reason
        self._seen.add(key)
        if self._near is not None and not self._near.add(example.chosen.text):
            return "nearly the same text"
        return None

    def _key(self, example: Example) -> bytes:
        parts = [normalise(example.chosen.text)]
        if self._dedupe == "pairs":
            parts.append(example.picture.content if example.picture else "")
            parts.append(normalise(example.prompt) if self._with_prompt else "")
            parts.append(normalise(example.rejected.text) if example.rejected else "")
        digest = hashlib.blake2b(digest_size=16)
        for part in parts:
            data = part.encode()
            digest.update(len(data).to_bytes(8) + data)
        return digest.digest()
