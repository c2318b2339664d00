"""retry-failed: the error rows of a run once more, by its job.json. Other rows stay as they are."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cogbatch.batch.backend import Backend, cogvlm_backend
from cogbatch.batch.job import check_job, describe, job_plan, run_missing, summarize
from cogbatch.batch.ongoing import Ongoing
from cogbatch.batch.progress import Progress, Silent, Status
from cogbatch.batch.spec import JobSpec, parse_spec
from cogbatch.batch.stored import incomplete_addresses
from cogbatch.batch.summary import ErrorKind, count_parts, error_kinds
from cogbatch.batch.tally import Tally
from cogbatch.dataset.retry import RetryRound
from cogbatch.dataset.run_directory import RunDirectory, no_run
from cogbatch.errors import RunDirectoryError


@dataclass(frozen=True)
class Retried:
    """What came of it. errors, error_kinds: left in the run; missing_shards: never done, run the job."""

    name: str
    rows_retried: int
    rows_mended: int
    parts_replaced: int
    rows: int
    errors: int
    error_kinds: tuple[ErrorKind, ...]
    missing_shards: int
    seconds: float
    parts: str

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The same for a person."""
        done = f"{self.rows_mended} of {self.rows_retried} error rows are fine now"
        lines = [
            f"{self.name}: {done}, {self.parts_replaced} parts replaced in {self.seconds:.1f} s"
            if self.rows_retried
            else f"{self.name}: no error rows, nothing was redone",
            f"{self.rows} rows, {self.errors} errors",
        ]
        lines += [
            f"  {kind.count} x {kind.stage}/{kind.type}, for example: {kind.message}"
            for kind in self.error_kinds[:3]
        ]
        if self.missing_shards:
            lines.append(f"{self.missing_shards} shards are missing: run the job itself to finish it")
        return [*lines, f"parts: {self.parts}"]


def retry_failed(
    run_dir: str | Path,
    *,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
    backend: Backend | None = None,
) -> Retried:
    """Runs the error rows of a run's finished parts again and replaces those parts, each whole.

    Rows that were fine stay bit for bit as they are. Killed in the middle, a part is the old or the new one.

    Args:
        overrides: `key.sub=value` over the stored spec, for what may change between starts of a job: where
            things lie, the cluster, how errors are treated.
        progress: where to say how it goes; None says nothing.
        backend: the model's side; None is CogVLM.

    Raises:
        CogbatchError: no run, another job by the overrides, in use, or the job had to stop.
    """
    progress, backend = progress or Silent(), backend or cogvlm_backend()
    run = RunDirectory(run_dir)
    spec = _stored_spec(run, overrides)
    dataset, shards = check_job(spec, backend)
    with run.lock(progress.say) as guard:
        model = backend.prepare(spec.model, progress.say)
        described = describe(spec, model, dataset, shards, stored=run.read_job() or {})
        job = described | run.start(described)
        missing = {shard.part_name for shard in run.missing(shards)}
        footers = {footer.name: footer for footer in run.footers() if footer.errors}
        failed = [s for s in shards if s.part_name in footers and s.part_name not in missing]
        before = sum(footers[shard.part_name].errors for shard in failed)
        status: Status | None = None
        if failed:
            progress.say(f"{before} error rows in {len(failed)} parts to do again; starting Ray")
            token = secrets.token_hex(8)
            ongoing = Ongoing(
                name=run.path.name,
                plan=replace(job_plan(spec, run, dataset, job), retry=token),
                work=RetryRound(run, token),
                left=tuple(failed),
                before=Tally(),
                rows_total=before,
                max_error_rate=1.0,  # the rate of errors among error rows stops nothing
                guard=guard,
            )
            status = run_missing([ongoing], spec, model, backend=backend, progress=progress)
            if ongoing.failure:
                raise ongoing.failure
        tally = count_parts(run.parts, run.footers())
        if failed and not missing:
            run.finish(summarize(run, spec, job, tally, len(failed), status).to_json())
    names = {shard.part_name for shard in failed}
    left = sum(footer.errors for footer in run.footers() if footer.name in names)
    return Retried(
        name=spec.name,
        rows_retried=before,
        rows_mended=before - left,
        parts_replaced=len(failed),
        rows=tally.rows,
        errors=tally.errors,
        error_kinds=error_kinds(tally),
        missing_shards=len(missing),
        seconds=status.seconds if status else 0.0,
        parts=str(run.parts),
    )


def _stored_spec(run: RunDirectory, overrides: Sequence[str]) -> JobSpec:
    """The spec of job.json for another start."""
    stored = run.read_job()
    if stored is None or not isinstance(stored.get("spec"), dict):
        raise no_run(run.path)
    here = f"output.path={json.dumps(str(run.path), ensure_ascii=False)}"
    spec = parse_spec(stored["spec"], overrides=[*overrides, here], where=str(run.path / "job.json"))
    if absent := incomplete_addresses(spec.model_dump(mode="json")):
        raise RunDirectoryError(
            f"{run.path}: job.json does not keep the secrets of {', '.join(absent)};"
            f" give the address again: --set {absent[0]}=URL"
        )
    return spec
