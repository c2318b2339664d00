"""Words that LLaVA and LLaMA-Factory read as the place of an image, wherever they stand in a text."""

from __future__ import annotations

import re

from cogbatch.eval.export.example import Example

IMAGE = "<image>"
PLACEHOLDER = re.compile("<(?:image|video|audio)>")


def asked(example: Example) -> str:
    """The prompt with one image token in front where there is an image, and no other one."""
    prompt, found = PLACEHOLDER.subn("", example.prompt)
    while found:  # what stood around a word can be one: <im<image>age>
        prompt, found = PLACEHOLDER.subn("", prompt)
    prompt = prompt.strip()
    return f"{IMAGE}\n{prompt}" if example.picture is not None else prompt


def refuse(example: Example) -> str | None:
    """A text to learn that holds such a word would ask for an image that is not there."""
    return "with an image token in its text" if PLACEHOLDER.search(example.chosen.text) else None
