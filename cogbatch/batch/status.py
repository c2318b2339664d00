"""How far a job is, from its run directory alone: no head, no driver, no Ray. Changes nothing there."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec

from cogbatch.batch.progress import clock
from cogbatch.batch.summary import ErrorKind, count_parts, error_kinds
from cogbatch.batch.tally import Tally
from cogbatch.dataset.object_path import ObjectPath, Place, place_of
from cogbatch.dataset.parts import PartFooter
from cogbatch.dataset.run_directory import RunDirectory, no_run
from cogbatch.dataset.run_lock import SILENT_S, Holder
from cogbatch.dataset.shards import stored_shards

RATE_OVER_S = 600.0  # before the newest part
RATE_PARTS, RATE_LEAST_S = 4, 10.0  # parts of several workers come in bursts: fewer, or closer, say nothing
SHOWN_ERRORS = 3
WRITTEN = ("mtime", "LastModified", "updated", "last_modified", "created")  # disk, S3, GCS, Azure, memory


@dataclass(frozen=True)
class RunStatus:
    """A run as its directory has it.

    state: finished, running (its driver lives), stopped (it does not), or unknown (it is on another machine
    and the run on a disk). driver: who holds the run, or held it last. rows: in finished parts.
    items_per_s: of a finished run what its summary says; else from the times of the newest parts, None when
    they are too few or too close for a speed. last_activity: when a part, the lock or a log was last written.
    damaged: names of parts without a readable footer, which count as missing.
    """

    path: str
    name: str
    state: str
    driver: str | None
    rows: int
    rows_total: int
    errors: int
    candidates: int
    tokens: int
    shards: int
    shards_total: int
    items_per_s: float | None
    last_activity: str | None
    silent_s: float | None
    error_kinds: tuple[ErrorKind, ...]
    damaged: tuple[str, ...] = ()

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the latest speed; None when nobody works or nothing is known."""
        if self.state in ("finished", "stopped") or not self.items_per_s:
            return None
        return (self.rows_total - self.rows) / self.items_per_s

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self) | {"eta_s": self.eta_s}

    def line(self) -> str:
        """All of it in one line."""
        return f"{self.path}  {self.state}  {self.rows}/{self.rows_total} items  {self.errors} errors"

    def lines(self) -> list[str]:
        """The same for a person."""
        percent = 100 * self.rows // max(self.rows_total, 1)
        lines = [
            f"{self.name}: {self.state}, {self.rows} of {self.rows_total} rows ({percent} %) in "
            f"{self.shards} of {self.shards_total} shards, {self.errors} errors, "
            f"{self.candidates} candidates, {self.tokens} tokens"
        ]
        if self.items_per_s is not None:
            left = "" if self.eta_s is None else f", {clock(self.eta_s)} left"
            by = "when it last worked" if self.state == "finished" else "by the newest parts"
            lines.append(f"{self.items_per_s:.2f} items/s {by}{left}")
        if self.last_activity is not None and self.silent_s is not None:
            lines.append(f"last written: {self.last_activity}, {clock(self.silent_s)} ago")
        if self.driver is not None:
            lines.append(f"driver: {self.driver}")
        lines += [
            f"  {kind.count} x {kind.stage}/{kind.type}, for example: {kind.message}"
            for kind in self.error_kinds[:SHOWN_ERRORS]
        ]
        lines += [
            f"damaged, to be done again: {place_of(self.path) / 'parts' / name}"
            for name in self.damaged[:SHOWN_ERRORS]
        ]
        if len(self.damaged) > SHOWN_ERRORS:
            lines.append(f"damaged: {len(self.damaged)} parts in all")
        if self.state == "stopped":
            lines.append("start the same job again: it does only what is missing")
        return [*lines, f"run directory: {self.path}"]


def run_status(path: str | Place, *, now_s: float | None = None) -> RunStatus:
    """The status of the run in that directory.

    Args:
        now_s: seconds since the epoch; None is now.

    Raises: RunDirectoryError: there is no run, or its job.json is not one. OSError, ArrowException: the
        storage fails, or a part is damaged within.
    """
    run = RunDirectory(path)
    job = run.read_job()
    if job is None:
        raise no_run(run.path)
    shards = stored_shards(job, where=run.path / "job.json")
    readable = run.footers()
    names = {footer.name for footer in readable}
    footers = [footer for footer in readable if footer.job_fingerprint == job["job_fingerprint"]]
    rows_total = sum(shard.num_rows for shard in shards)
    tally = count_parts(run.parts, footers)
    now_s = time.time() if now_s is None else now_s
    driver, lives = _driver(run, now_s)
    written = _times(str(run.parts))
    newest = max(
        [*written.values(), *_times(str(run.path)).values(), *_times(str(run.logs)).values()], default=None
    )
    state = _state(tally, rows_total, lives)
    return RunStatus(
        path=str(run.path),
        name=str(job.get("spec", {}).get("name", "job")),
        state=state,
        driver=driver,
        rows=tally.rows,
        rows_total=rows_total,
        errors=tally.errors,
        candidates=tally.candidates,
        tokens=tally.tokens,
        shards=len(footers),
        shards_total=len(shards),
        items_per_s=run.finished_speed() if state == "finished" else _speed(footers, written),
        last_activity=None
        if newest is None
        else datetime.fromtimestamp(newest, UTC).isoformat(timespec="seconds"),
        silent_s=None if newest is None else max(0.0, now_s - newest),
        error_kinds=error_kinds(tally),
        damaged=tuple(
            shard.part_name for shard in shards if shard.part_name in written and shard.part_name not in names
        ),
    )


def _state(tally: Tally, rows_total: int, lives: bool | None) -> str:
    if lives:
        return "running"
    if tally.rows >= rows_total:
        return "finished"
    return "unknown" if lives is None else "stopped"


def _driver(run: RunDirectory, now_s: float) -> tuple[str | None, bool | None]:
    """What the lock says of the run's latest driver, and whether it lives; None where that cannot be seen."""
    if not isinstance(run.path, Path):
        return _beating_driver(run.path, now_s)
    try:
        text = (run.path / "lock").read_text(errors="replace").strip()
    except OSError:
        return None, False
    match = re.match(r"pid (\d+) on (\S+)", text)
    if match is None:
        return text or None, None if text else False
    if match[2] != socket.gethostname():
        return f"{text}; on another machine, so whether it lives cannot be seen from here", None
    lives = _holds(int(match[1]), run.path / "lock")
    return (text if lives else f"none (the last was {text})"), lives


def _beating_driver(run: ObjectPath, now_s: float) -> tuple[str | None, bool | None]:
    """The same on an object store, where a driver writes its lock anew every few seconds."""
    beats = {name: when for name, when in _times(f"{run}/lock").items() if name.isdecimal()}
    if not beats:
        return None, False
    last = max(beats, key=int)
    try:
        holder = Holder(**json.loads((run / "lock" / last).read_bytes()))
    except (OSError, ValueError, TypeError):  # replaced at this moment, or no lock of ours
        return None, None
    lives = not holder.is_gone and now_s - beats[last] < SILENT_S
    return (str(holder) if lives else f"none (the last was {holder})"), lives


def _holds(pid: int, path: Path) -> bool:
    """Whether a process of this machine holds the lock of a file. Asking by locking could refuse a driver."""
    try:
        listed = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:  # not Linux
        try:
            os.kill(pid, 0)
        except OSError as err:
            return isinstance(err, PermissionError)
        return True
    inode = str(path.stat().st_ino)
    return any(
        entry[4] == str(pid) and entry[5].rsplit(":", 1)[-1] == inode for entry in listed if len(entry) > 5
    )


def _times(folder: str) -> dict[str, float]:
    """When each file of a folder was written, in seconds since the epoch; empty when there is no folder."""
    fs, root = fsspec.core.url_to_fs(folder)
    try:
        entries: Sequence[Mapping[str, Any]] = fs.ls(root, detail=True, refresh=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    files = [entry for entry in entries if entry["type"] == "file"]
    return {entry["name"].rsplit("/", 1)[-1]: _written_s(entry) for entry in files}


def _written_s(entry: Mapping[str, Any]) -> float:
    written = next((entry[key] for key in WRITTEN if entry.get(key) is not None), 0.0)
    return written.timestamp() if isinstance(written, datetime) else float(written)


def _speed(footers: Sequence[PartFooter], written: Mapping[str, float]) -> float | None:
    """Rows per second between the oldest and the newest of the latest parts."""
    parts = sorted((written[footer.name], footer.num_rows) for footer in footers if footer.name in written)
    latest = [(when, rows) for when, rows in parts if when >= parts[-1][0] - RATE_OVER_S]
    if len(latest) < RATE_PARTS:
        return None
    oldest, newest = latest[0][0], latest[-1][0]
    if newest - oldest < RATE_LEAST_S:
        return None
    return sum(rows for when, rows in latest if when > oldest) / (newest - oldest)
