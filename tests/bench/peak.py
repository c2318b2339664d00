"""Memory of this process, as Linux counts it; imports nothing that would need some."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")


def anonymous_kb() -> int:
    """RssAnon: memory of this process's own, mapped files not counted."""
    return _field("RssAnon")


def shared_kb() -> int:
    """RssShmem: shared memory that this process has touched, as of an object store."""
    return _field("RssShmem")


def forget_peak() -> None:
    """The peak starts again from what is held now (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_anonymous_kb() -> int:
    """The most RssAnon since forget_peak: VmHWM without file maps, which do not grow; nothing is sampled."""
    return _field("VmHWM") - _field("RssFile") - _field("RssShmem")


def _field(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise OSError(f"no {name} in {_STATUS}")
