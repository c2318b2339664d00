"""How much memory this machine has and what is left of it: /proc and control groups, no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 2**60  # cgroup v1 says "no limit" with a huge number


@dataclass(frozen=True)
class Memory:
    """Of a machine, a container or a card.

    available_bytes: can be taken now. total_bytes: there is. own_bytes: that this process holds.
    """

    available_bytes: int
    total_bytes: int
    own_bytes: int = 0

    def left_bytes(self, share: float = 1.0) -> int:
        """What this process may still take if it may hold this share of it all; others may be about to."""
        if share >= 1:
            return self.available_bytes
        return max(0, min(self.available_bytes, int(self.total_bytes * share) - self.own_bytes))


def machine_memory(*, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> Memory:
    """By the kernel's own estimate (MemAvailable), and a container's limit where that leaves less."""
    info = _fields(proc / "meminfo")
    limits = _limits(proc / "self" / "cgroup", cgroups)
    total = info.get("MemTotal", 0) * 1024 or _installed()
    # Without /proc half of what is installed is a guess on the safe side.
    available = info["MemAvailable"] * 1024 if "MemAvailable" in info else total // 2
    return Memory(
        available_bytes=min([available, *(left for left, _ in limits)]),
        total_bytes=min([total, *(most for _, most in limits)]),
        own_bytes=_fields(proc / "self" / "status").get("RssAnon", 0) * 1024,
    )


def _fields(file: Path) -> dict[str, int]:
    """The lines "Name: 12 kB" of a file, in its own units; empty where there is none."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return {}
    pairs = [line.replace(":", " ").split()[:2] for line in lines]
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _installed() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def _limits(membership: Path, cgroups: Path) -> list[tuple[int, int]]:
    """(left, limit) of every limit above this process, cgroup v1 and v2."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, _, group = line.partition(":")
        controllers, _, path = group.partition(":")
        if controllers == "memory":
            root, names = cgroups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        elif not controllers:
            root, names = cgroups, ("memory.max", "memory.current")
        else:
            continue
        # Inside a container the path may be that outside of it, and only the root is there.
        folder = root / path.strip("/")
        for place in (folder, *folder.parents):
            found += _limit(place, *names)
            if place == root:
                break
    return found


def _limit(folder: Path, limit: str, usage: str) -> list[tuple[int, int]]:
    """(left, limit) of a group, or nothing; cached files do not count against a limit."""
    try:
        most, used = int((folder / limit).read_text()), int((folder / usage).read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return []
    if most >= _UNLIMITED:
        return []
    stat = _fields(folder / "memory.stat")
    cached = stat.get("total_inactive_file", stat.get("inactive_file", 0))
    return [(max(0, most - used + cached), most)]
