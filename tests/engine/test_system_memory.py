"""Laws of what is left of a machine: by the kernel's estimate, by a container's limit, by a share of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cogbatch.engine.system_memory import Memory, machine_memory

KB = 1024


def machine(root: Path, *, groups: str = "", files: dict[str, str] | None = None) -> Memory:
    """A machine of 1,000 kB with 600 kB available, whose process holds 50 kB, in these control groups."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "meminfo").write_text("MemTotal:  1000 kB\nMemFree:  1 kB\nMemAvailable:  600 kB\n")
    (root / "proc" / "self" / "status").write_text("Name:\tpython\nRssAnon:\t      50 kB\n")
    (root / "proc" / "self" / "cgroup").write_text(groups)
    for name, text in (files or {}).items():
        file = root / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return machine_memory(proc=root / "proc", cgroups=root / "cgroup")


def test_without_limits_it_is_the_kernels_estimate(tmp_path: Path) -> None:
    assert machine(tmp_path) == Memory(600 * KB, 1000 * KB, 50 * KB)


@pytest.mark.parametrize(
    ("groups", "limit", "usage", "cached"),
    [
        ("0::/job\n", "job/memory.max", "job/memory.current", "inactive_file"),
        ("0::/job/inner\n", "job/memory.max", "job/memory.current", "inactive_file"),  # of the group above
        ("0::/not/here\n", "memory.max", "memory.current", "inactive_file"),  # a path outside the container
        (
            "5:cpu:/\n4:memory:/job\n",
            "memory/job/memory.limit_in_bytes",
            "memory/job/memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ],
)
def test_a_containers_limit_counts_where_it_leaves_less(
    tmp_path: Path, groups: str, limit: str, usage: str, cached: str
) -> None:
    stat = str(Path(limit).with_name("memory.stat"))
    files = {limit: "409600\n", usage: "204800\n", stat: f"anon 1\n{cached} 102400\n"}
    assert machine(tmp_path, groups=groups, files=files) == Memory(300 * KB, 400 * KB, 50 * KB)


@pytest.mark.parametrize("limit", ["max", str(2**63 - 4096), "10000000"])
def test_limits_above_the_machine_change_nothing(tmp_path: Path, limit: str) -> None:
    files = {"job/memory.max": limit, "job/memory.current": "1", "job/memory.stat": ""}
    assert machine(tmp_path, groups="0::/job\n", files=files).available_bytes == 600 * KB


def test_without_proc_half_of_what_is_installed_counts(tmp_path: Path) -> None:
    found = machine_memory(proc=tmp_path, cgroups=tmp_path)
    assert 0 < found.available_bytes == found.total_bytes // 2


def test_a_share_is_of_everything_and_holds_what_is_there_already() -> None:
    memory = Memory(available_bytes=600, total_bytes=1000, own_bytes=50)
    assert memory.left_bytes() == 600
    assert memory.left_bytes(0.5) == 450  # neighbours may yet take the other half
    assert Memory(300, 1000, 50).left_bytes(0.5) == 300
    assert Memory(600, 1000, 400).left_bytes(0.25) == 0
