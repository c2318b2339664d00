"""The run directory: everything a job leaves behind, and the only state it has. On disk or an object store.

    job.json  listing.json (of an image folder)  parts/part-*.parquet  summary.json  report.html  logs/
    lock      staging/<part>/part-*.parquet (single items of a split shard)  probes/

On an object store, lock/ holds one object a driver, and logs stay on each machine (RunDirectory.logs).
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa

from cogbatch.cache import cache_root
from cogbatch.dataset.atomic import read_json, remove_temporaries, write_atomically, write_json
from cogbatch.dataset.differences import differences
from cogbatch.dataset.object_path import Place, make_folder, names_in, place_of, remove_tree
from cogbatch.dataset.parts import (
    PartFooter,
    list_parts,
    read_footer,
    read_footers,
    read_part,
    write_part,
)
from cogbatch.dataset.run_lock import Guard, beating_lock, os_lock
from cogbatch.dataset.shards import Shard
from cogbatch.errors import RunDirectoryError
from cogbatch.redact import without_secrets

OUR_NAMES = frozenset(
    {"job.json", "listing.json", "parts", "staging", "probes", "logs", "lock", "summary.json", "report.html"}
)
MAX_NAMES = 5  # in one message


def is_sweep(path: Place) -> bool:
    """Whether that is the directory of a sweep, whose points are run directories."""
    return (path / "sweep.json").exists()


def no_run(path: Place) -> RunDirectoryError:
    """The error for a path without job.json."""
    if isinstance(path, Path) and not path.exists():
        return RunDirectoryError(
            f"{path}: no such folder; expected a run directory, the output.path of a job"
        )
    if is_sweep(path):
        return RunDirectoryError(f"{path} is a sweep, not a run; name one of its points: {path}/points/NAME")
    return RunDirectoryError(f"{path} has no job.json; expected a run directory, the output.path of a job")


@dataclass(frozen=True)
class RunDirectory:
    """A run directory by its path; making one touches nothing, so that it can travel to workers.

    Driver: `with run.lock(): job = run.start(job); run.missing(shards)`. Workers: write_probe, write_part.

    Raises RunDirectoryError: the path is a URL with a secret, or of a kind that cannot be opened here.
    """

    path: Place

    def __init__(self, path: str | Place) -> None:
        text = str(path)
        if "://" in text:
            if without_secrets(text) != text:
                raise RunDirectoryError(
                    f"output {text!r}: an address with a secret, and run directories are named in logs;"
                    " leave credentials to the environment"
                )
            try:
                fsspec.core.url_to_fs(text)
            except (ImportError, ValueError) as err:
                raise RunDirectoryError(f"output {text!r}: this address cannot be opened: {err}") from err
        object.__setattr__(self, "path", place_of(path))

    @property
    def parts(self) -> Place:
        """The folder of finished parts."""
        return self.path / "parts"

    @property
    def logs(self) -> Path:
        """The folder of logs; of a run on an object store one on each machine, in its cache."""
        if isinstance(self.path, Path):
            return self.path / "logs"
        mark = hashlib.sha256(str(self.path).encode()).hexdigest()[:8]
        return cache_root() / "logs" / f"{self.path.name}-{mark}"

    def check(self) -> None:
        """Raises RunDirectoryError: a file, a directory that is not a run's, or that may not be written."""
        if isinstance(self.path, Path) and self.path.exists() and not self.path.is_dir():
            raise RunDirectoryError(f"{self.path} is a file; expected a directory or a new path")
        if isinstance(self.path, Path):
            _require_writable(self.path)
        if self.read_job() is not None:
            return
        foreign = [name for name in names_in(self.path) if name not in OUR_NAMES and name[0] != "."]
        if foreign:
            raise RunDirectoryError(
                f"{self.path} holds something else than a run ({', '.join(foreign[:MAX_NAMES])});"
                " use another output path"
            )
        if list_parts(self.path):
            raise RunDirectoryError(
                f"{self.path} has parts but no job.json; restore it, or use another output path"
            )

    @contextmanager
    def lock(self, say: Callable[[str], None] = lambda _: None) -> Iterator[Guard]:
        """Holds the run for this driver; yields what raises RunDirectoryError once the hold is lost.

        On disk an OS lock: it ends with the process, however that ends, or when its file is deleted. On an
        object store one that beats (run_lock.py); say: is told when it waits, or is advisory only.

        Creates the directory. Raises RunDirectoryError: in use (by whom), or not a run's directory.
        """
        self.check()
        if isinstance(self.path, Path):
            self.path.mkdir(parents=True, exist_ok=True)
            with os_lock(self.path / "lock") as guard:
                yield guard
        else:
            with beating_lock(self.path, say=say) as guard:
                yield guard

    def start(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Begins or resumes the job and returns the job.json in force: that of the first start.

        Args:
            job: any JSON object with the key "job_fingerprint"; "identity" should hold what went into it.

        Raises RunDirectoryError: another job's directory (what differs, old -> new), or no run's.
        """
        if not isinstance(job.get("job_fingerprint"), str):
            raise ValueError('a job has a string under "job_fingerprint"')
        self.check()
        stored = self.read_job()
        if stored is not None and stored.get("job_fingerprint") != job["job_fingerprint"]:
            self.refuse_other(stored, job)
            raise RunDirectoryError(
                f"{self.path} belongs to another job ({stored.get('job_fingerprint')});"
                " use another output path"
            )
        for folder in (self.parts, self.logs, self.path / "staging", self.path / "probes"):
            make_folder(folder)
            remove_temporaries(folder)
        remove_temporaries(self.path)
        for probe in names_in(self.path / "probes"):
            self._probe(probe).unlink()
        if stored is None:
            write_json(self.path / "job.json", job)
            stored = read_json(self.path / "job.json")  # as it will be read on resume: tuples are lists
        self._remove_needless_staging(stored["job_fingerprint"])
        return dict(stored)

    def refuse_other(self, stored: Mapping[str, Any], job: Mapping[str, Any]) -> None:
        """Raises RunDirectoryError saying what differs, when the identities of two jobs do."""
        if found := differences(stored, job):
            raise RunDirectoryError(
                f"{self.path} belongs to another job: {', '.join(found)};"
                " use another output path, or the old settings"
            )

    def read_job(self) -> dict[str, Any] | None:
        """job.json, or None before the first start. Raises RunDirectoryError: it is damaged."""
        path = self.path / "job.json"
        try:
            value = read_json(path)
        except FileNotFoundError:
            return None
        except OSError as err:
            reason = (err.strerror or str(err)).removeprefix(f"{path}: ")
            raise RunDirectoryError(f"{path} cannot be read: {reason}") from err
        except (ValueError, RecursionError) as err:
            raise RunDirectoryError(f"{path} cannot be read ({err}); expected the job of a run") from err
        if not isinstance(value, dict) or not isinstance(value.get("job_fingerprint"), str):
            raise RunDirectoryError(
                f"{path} is no job of ours: it has no job_fingerprint; use another output path"
            )
        for key in ("identity", "spec"):
            if not isinstance(value.get(key, {}), dict):
                raise RunDirectoryError(
                    f"{path}: {key} is not an object; was it made by hand, or by another version?"
                )
        return value

    def missing(
        self, shards: Iterable[Shard], *, footers: Iterable[PartFooter] | None = None
    ) -> tuple[Shard, ...]:
        """The shards without a complete part of this job, in order. Raises RunDirectoryError: no job.json.

        footers: those of all parts, where they have just been read.
        """
        shards = tuple(shards)
        job = self.read_job()
        if job is None:
            raise RunDirectoryError(
                f"{self.path / 'job.json'} is gone, and with it what the parts belong to; restore it, or use"
                " another output path"
            )
        if footers is None:
            present = set(list_parts(self.path))
            found = read_footers(self.parts, [s.part_name for s in shards if s.part_name in present])
            footers = (footer for footer in found if footer is not None)
        by_name = {footer.name: footer for footer in footers}
        return tuple(
            shard
            for shard in shards
            if not _is_whole(by_name.get(shard.part_name), shard, job["job_fingerprint"])
        )

    def footers(self) -> tuple[PartFooter, ...]:
        """The footers of all readable parts, in input order."""
        found = read_footers(self.parts, list_parts(self.path))
        return tuple(footer for footer in found if footer is not None)

    def staging(self, shard: Shard) -> Place:
        """The folder, created, for the single-item parts of a shard that was split."""
        folder = self._staging(shard)
        make_folder(folder)
        return folder

    def missing_staged(self, shard: Shard, *, job_fingerprint: str) -> tuple[Shard, ...]:
        """The single items of the shard that have no complete part of this job in staging."""
        items = shard.split()
        footers = read_footers(self._staging(shard), (item.part_name for item in items))
        pairs = zip(items, footers, strict=True)
        return tuple(item for item, footer in pairs if not _is_whole(footer, item, job_fingerprint))

    def commit_staged(self, shard: Shard, *, job_fingerprint: str) -> PartFooter | None:
        """Joins the staged items of the shard into its part, then removes them; None while any is missing."""
        if self.missing_staged(shard, job_fingerprint=job_fingerprint):
            return None
        folder = self._staging(shard)
        tables = [read_part(folder, item.part_name) for item in shard.split()]
        footer = write_part(self.parts, shard.part_name, pa.concat_tables(tables))
        self.remove_staging(shard)
        return footer

    def remove_staging(self, shard: Shard) -> None:
        """Deletes the staged items of a shard, whose part has them now."""
        remove_tree(self._staging(shard))

    def write_probe(self, token: str, name: str) -> None:
        """Worker: leaves token under name, to show that it sees the driver's storage.

        Raises RunDirectoryError: the run directory is not there.
        """
        try:
            write_atomically(self._probe(name), lambda file: file.write(token.encode()))
        except FileNotFoundError as err:
            raise RunDirectoryError(
                f"{self.path} is not on {socket.gethostname()}: driver and workers must see the same storage;"
                " use a shared file system or an object store for output.path"
            ) from err
        except OSError as err:
            raise RunDirectoryError(
                f"{self.path} cannot be written from {socket.gethostname()}: {err}"
            ) from err

    def read_probe(self, name: str) -> str | None:
        """Driver: the token under name; None when it is not there."""
        try:
            return self._probe(name).read_text()
        except FileNotFoundError:
            return None

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Leaves summary.json and nothing in staging, once every shard has its part.

        Items are left there when a shard that an earlier driver had split came to its part whole.
        """
        for name in names_in(self.path / "staging"):
            remove_tree(self.path / "staging" / name)
        write_json(self.path / "summary.json", summary)

    def finished_speed(self) -> float | None:
        """Items per second when it last worked, as summary.json has it; None where there is none."""
        try:
            speed = read_json(self.path / "summary.json")["items_per_s"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return float(speed) if isinstance(speed, int | float) and speed > 0 else None

    def _remove_needless_staging(self, job_fingerprint: str) -> None:
        """A driver killed while it committed leaves the items of a part that is finished."""
        for name in names_in(self.path / "staging"):
            folder = self.path / "staging" / name
            footer = read_footer(self.parts / f"{name}.parquet")
            if footer is not None and footer.job_fingerprint == job_fingerprint:
                remove_tree(folder)
            else:
                remove_temporaries(folder)

    def _staging(self, shard: Shard) -> Place:
        return self.path / "staging" / shard.part_name.removesuffix(".parquet")

    def _probe(self, name: str) -> Place:
        if not name or "/" in name or name.startswith("."):
            raise ValueError(f"probe name {name!r}: expected a plain file name")
        return self.path / "probes" / name


def _require_writable(path: Path) -> None:
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise RunDirectoryError(f"{path} cannot be made: {there} is a file; use another output path")
    if not os.access(there, os.W_OK | os.X_OK | (os.R_OK if there == path else 0)):
        raise RunDirectoryError(
            f"{path} cannot be written: this user may not write in {there}; change that, or use another"
            " output path"
        )


def _is_whole(footer: PartFooter | None, shard: Shard, job_fingerprint: str) -> bool:
    """Whether a part is that of the shard in this job, all of it."""
    return (
        footer is not None and footer.num_rows == shard.num_rows and footer.job_fingerprint == job_fingerprint
    )
