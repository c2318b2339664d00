"""`verify`: every check of a model directory, in order: its files, one load, and against the original."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

from cogbatch.checkpoint.kind import classify
from cogbatch.checkpoint.manifest import MANIFEST
from cogbatch.checkpoint.verify.against import check_parity, check_source, require_sat
from cogbatch.checkpoint.verify.check import Check, Verification
from cogbatch.checkpoint.verify.directory import check_directory
from cogbatch.checkpoint.verify.loading import RESULTS, check_loading
from cogbatch.errors import CheckpointError

TOLERANCE = 1e-4
"""Of logits in fp32: two correct implementations were seen 3.6e-5 apart."""


def verify(
    model_dir: str | Path,
    *,
    against: str | Path | None = None,
    tolerance: float = TOLERANCE,
    on_check: Callable[[Check], None] = lambda _: None,
) -> Verification:
    """Whether a model directory is whole, loads and infers; and whether it computes what its source does.

    Args:
        against: the SAT checkpoint it was converted from; needs the extra `sat`, and in fp32 room for one of
            the two models at a time.
        tolerance: the largest difference of logits that passes.
        on_check: called with each check when it is done.

    Raises:
        ValueError: tolerance is not above 0.
        CheckpointError: a path is no directory of its kind, or the checkpoint cannot be read.
        CogbatchError: the extra `sat` is not installed.
    """
    if not (tolerance > 0 and math.isfinite(tolerance)):
        raise ValueError(f"tolerance is {tolerance}, expected a number above 0, such as 1e-4")
    folder = Path(model_dir).expanduser()
    # A directory with a manifest is ours, whatever else is missing.
    if not (folder / MANIFEST).is_file() and classify(folder) == "sat":
        raise CheckpointError(f"{folder}: a SAT checkpoint; convert it, then verify the result --against it")
    source = None if against is None else Path(against).expanduser()
    if source is not None:
        if classify(source) != "sat":
            raise CheckpointError(f"{source}: a Hugging Face directory; --against takes a SAT checkpoint")
        require_sat()
    contents = check_directory(folder, on_check=on_check)
    checks = list(contents.checks)
    with tempfile.TemporaryDirectory(prefix="cogbatch-verify-") as temporary:
        work = Path(temporary)
        checks += check_loading(folder, contents, work=work, for_parity=source is not None, on_check=on_check)
        if source is not None:
            checks.append(check_source(source, contents.manifest))
            on_check(checks[-1])
            if (work / RESULTS).is_file() and not any(
                c.name == "inference" and c.status == "FAILED" for c in checks
            ):
                checks += check_parity(source, contents, work=work, tolerance=tolerance, on_check=on_check)
            else:
                checks.append(
                    Check("parity", "FAILED", "not tried: the model directory gives no logits; see above")
                )
                on_check(checks[-1])
    return Verification(folder, source, tuple(checks))
