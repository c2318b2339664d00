"""The requests that are being answered, within bounds of rows and of keys and values.

Knows who may join and who has to leave; runs nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from weakref import WeakValueDictionary

from cogbatch.engine.answer import Answer
from cogbatch.engine.cache import Prefix
from cogbatch.engine.item import Item
from cogbatch.engine.prompts import Picture, Task

_RECENT_IMAGES = 2


class Images:
    """Prefixes of images, shared by all that continue them, and kept a little longer for the next."""

    def __init__(self) -> None:
        self._alive: WeakValueDictionary[bytes, Prefix] = WeakValueDictionary()
        self._recent: deque[Prefix] = deque(maxlen=_RECENT_IMAGES)

    def get(self, picture: Picture, prefill: Callable[[], Prefix]) -> Prefix:
        """The prefix of equal pixels, or a new one."""
        prefix = self._alive.get(picture.digest)
        if prefix is None:
            prefix = self._alive[picture.digest] = prefill()
        self._recent.append(prefix)
        return prefix

    def __contains__(self, picture: Picture) -> bool:
        return picture.digest in self._alive

    @property
    def num_tokens(self) -> int:
        """Tokens of keys and values in them."""
        return sum(prefix.length for prefix in self._alive.values())

    def forget_unused(self) -> None:
        self._recent.clear()


class Flight:
    """Answers in the order in which they began.

    Args:
        max_rows: rows decoded together. max_cached_tokens: of keys and values held at once. The first
            request is taken however large it is.
    """

    def __init__(self, *, max_rows: int, max_cached_tokens: int) -> None:
        self.answers: list[Answer] = []
        self.images = Images()
        self._max_rows = max_rows
        self._max_cached_tokens = max_cached_tokens

    @property
    def running(self) -> list[Item]:
        """Items with rows to decode."""
        return [item for answer in self.answers for item in answer.running]

    @property
    def _cached_tokens(self) -> int:
        """Tokens of keys and values that may come to be held, if nobody joins."""
        return self.images.num_tokens + sum(answer.task.own_tokens for answer in self.answers)

    def has_room_for(self, task: Task) -> bool:
        """Whether it can join."""
        if self.answers and task.num_rows + sum(_rows(item) for item in self.running) > self._max_rows:
            return False
        if not self._has_tokens_for(task):
            self.images.forget_unused()
        return not self.answers or self._has_tokens_for(task)

    def take_finished(self) -> list[Answer]:
        """Removes those that are done, and returns them."""
        finished = [answer for answer in self.answers if answer.is_done]
        self.answers = [answer for answer in self.answers if not answer.is_done]
        return finished

    def take_starved(self) -> list[Answer]:
        """Removes those for whom memory ran out, and leaves no room for as much again."""
        starved = [answer for answer in self.answers if answer.is_starved]
        if starved:
            self.answers = [answer for answer in self.answers if not answer.is_starved]
            self.shrink()
        return starved

    def take_last(self) -> Answer:
        """Removes the one that began last, and leaves no room for as much again."""
        last = self.answers.pop()
        self.shrink()
        return last

    def shrink(self) -> None:
        """Memory has run out: what is held now is all that may be held from here on."""
        self.images.forget_unused()
        self._max_cached_tokens = self._cached_tokens

    def _has_tokens_for(self, task: Task) -> bool:
        image = 0 if task.picture is None or task.picture in self.images else task.picture.num_tokens
        return self._cached_tokens + task.own_tokens + image <= self._max_cached_tokens


def _rows(item: Item) -> int:
    """Rows to count for an item: those alive, unless it may draw others anew."""
    return item.prompt.num_rows if item.prompt.part.params.resample_loops else item.cache.num_rows
