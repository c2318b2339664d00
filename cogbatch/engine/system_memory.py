"""How much memory a process on this machine can still take: /proc and control groups, no torch."""

from __future__ import annotations

import os
from pathlib import Path

_UNLIMITED = 2**60  # cgroup v1 says "no limit" with a huge number


def available_bytes(*, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """The kernel's own estimate (MemAvailable), or what a container's limit leaves if that is less."""
    return min([_machine(proc / "meminfo"), *_limits(proc / "self" / "cgroup", cgroups)])


def _machine(meminfo: Path) -> int:
    try:
        for line in meminfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:  # no Linux: half of what is installed is a guess on the safe side
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (ValueError, OSError):
        return 0


def _limits(membership: Path, cgroups: Path) -> list[int]:
    """What is left under every limit above this process, cgroup v1 and v2."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        _, _, group = line.partition(":")
        controllers, _, path = group.partition(":")
        if controllers == "memory":
            root, limit, usage = cgroups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        elif not controllers:
            root, limit, usage = cgroups, "memory.max", "memory.current"
        else:
            continue
        # Inside a container the path may be that outside of it, and only the root is there.
        folder = root / path.strip("/")
        for place in (folder, *folder.parents):
            found = _left(place, limit, usage)
            if found is not None:
                left.append(found)
            if place == root:
                break
    return left


def _left(folder: Path, limit: str, usage: str) -> int | None:
    """Bytes until the limit of a group, which cached files do not count against; None: there is no limit."""
    try:
        most, used = int((folder / limit).read_text()), int((folder / usage).read_text())
        if most >= _UNLIMITED:
            return None
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        cached = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
    except (OSError, ValueError):  # also "max"
        return None
    return max(0, most - used + cached)
