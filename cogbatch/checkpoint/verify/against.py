"""A model directory against the SAT checkpoint it was made from, which SwissArmyTransformer itself runs.

Both sides in fp32, on the same token ids and pixels, one after the other: a 17B model takes 70 GB on each.
Where the conversion rounds (--dtype; LoRA merged into 16-bit weights), SAT's weights are rounded through the
same dtype before they are compared, so that what remains is the conversion's; what the rounding alone does
to the original is told in a line of its own, and not judged.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from cogbatch.checkpoint.sat import SatFiles, find_sat_files
from cogbatch.checkpoint.verify.check import Check
from cogbatch.checkpoint.verify.directory import Contents
from cogbatch.checkpoint.verify.loading import PROBES, RESULTS
from cogbatch.checkpoint.verify.parity import Agreement, compare
from cogbatch.checkpoint.verify.process import run_programs, with_cogbatch, write_request
from cogbatch.checkpoint.verify.threads import differences
from cogbatch.errors import CheckpointError, CogbatchError
from cogbatch.model.configuration_cogvlm import CogVLMConfig

_SAT_PACKAGE = "SwissArmyTransformer"
# By name: importing that program imports SAT.
_SAT_SIDE = "cogbatch.checkpoint.verify.sat_side"


def require_sat() -> None:
    """Raises CogbatchError: the extra is not installed."""
    try:
        metadata.version(_SAT_PACKAGE)
    except metadata.PackageNotFoundError:
        raise CogbatchError(
            f"--against runs the checkpoint with {_SAT_PACKAGE}, which is not installed; "
            "pip install 'cogbatch[sat]'"
        ) from None


def check_source(sat_dir: Path, manifest: dict[str, Any] | None) -> Check:
    """Whether sat_dir is still, byte for byte, what was converted: the backup of a fine-tuned model."""
    if manifest is None:
        return Check("source", "skipped", "no manifest says which files were converted")
    expected: dict[str, str] = manifest.get("source", {}).get("files", {})
    if ills := differences(sat_dir, expected) or ("" if expected else "the manifest names no files"):
        detail = f"{sat_dir} is not what was converted: {ills}; look for the one that was, or convert again"
        return Check("source", "FAILED", detail)
    return Check("source", "ok", f"sha256 of {len(expected)} files: byte for byte what was converted")


def check_parity(
    sat_dir: Path,
    contents: Contents,
    *,
    work: Path,
    tolerance: float,
    on_check: Callable[[Check], None],
) -> tuple[Check, ...]:
    """Runs SAT on the probes that check_loading left in work, and compares."""
    done: list[Check] = []

    def report(check: Check) -> None:
        done.append(check)
        on_check(check)

    assert contents.config is not None
    # Of the iteration that was converted, whatever `latest` says by now.
    options = {} if contents.manifest is None else contents.manifest.get("options", {})
    try:
        files = find_sat_files(sat_dir, iteration=options.get("iteration"))
    except CheckpointError as err:
        report(Check("sat", "FAILED", str(err)))
        return tuple(done)
    ill, told = run_sat(
        files,
        probes=work / PROBES,
        continued=work / RESULTS,
        target_dtype=_target_dtype(contents),
        rope_dtype=_rope_dtype(contents.config),
        out=work,
    )
    if ill:
        detail = f"SwissArmyTransformer could not run {sat_dir}: {ill}"
        report(Check("sat", "FAILED", detail))
        return tuple(done)
    ranks, lora = len(files.weights), told["lora"]
    what = f"{ranks} {'process' if ranks == 1 else 'ranks'}" + (f", LoRA on {lora} weights" if lora else "")
    report(
        Check("sat", "ok", f"SwissArmyTransformer {metadata.version(_SAT_PACKAGE)} ran it in fp32, {what}")
    )
    ours = work / RESULTS
    for check in _judged(compare(ours, work / "expected.safetensors"), tolerance=tolerance):
        report(check)
    for check in _informed(told, work, rope_kept=contents.config.rope_inv_freq is not None):
        report(check)
    return tuple(done)


def run_sat(
    files: SatFiles,
    *,
    probes: Path,
    continued: Path,
    target_dtype: str | None,
    rope_dtype: str | None,
    out: Path,
) -> tuple[str, dict[str, Any]]:
    """One process per rank. See sat_side.SatRequest for the arguments.

    Returns:
        What went wrong ("" when nothing did), and sat_side.SatReport.
    """
    request = {
        "config": str(files.config_file.resolve()),
        "weights": [str(file.resolve()) for file in files.weights],
        "probes": str(probes.resolve()),
        "continued": str(continued.resolve()),
        "target_dtype": target_dtype,
        "rope_dtype": rope_dtype,
        "out": str(out.resolve()),
    }
    command, environment = with_cogbatch(_SAT_SIDE, write_request(out / "sat-request.json", request))
    num_ranks, cpus = len(files.weights), os.cpu_count() or 1
    shared = {
        **environment,
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_WORLD_SIZE": str(num_ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        # Parity is defined on the CPU: a GPU's matrix products would round otherwise.
        "CUDA_VISIBLE_DEVICES": "",
        "USE_XFORMERS": "",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cpus // num_ranks))),
        **({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}),
    }
    ranks = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_ranks)]
    if ill := run_programs([command] * num_ranks, ranks, logs=out):
        return ill, {}
    told: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return "", told


def _judged(found: dict[str, Agreement], *, tolerance: float) -> Iterator[Check]:
    for name, agreement in found.items():
        within = agreement.max_difference <= tolerance  # False for NaN
        yield Check(
            "parity" if name == "all" else f"parity {name}",
            "ok" if within else "FAILED",
            f"{agreement.text}; tolerance {tolerance:g}"
            + ("" if within else ": not what the original computes; convert again"),
            agreement.to_json(),
        )


def _informed(told: dict[str, Any], work: Path, *, rope_kept: bool) -> Iterator[Check]:
    """What is worth knowing and no fault of the conversion."""
    expected = work / "expected.safetensors"
    if "unrounded" in told["variants"]:
        agreement = compare(expected, work / "unrounded.safetensors")["all"]
        detail = f"what rounding alone does to the original: {agreement.text}"
        yield Check("rounding", "ok", detail, agreement.to_json())
    change = told["table_change"]
    if "other_table" in told["variants"]:
        agreement = compare(expected, work / "other_table.safetensors")["all"]
        chosen, other = ("kept", "exact one") if rope_kept else ("recomputed", "stored table")
        detail = (
            f"{chosen}; stored values are off by up to {change:.1e} (relative), and with the {other} "
            f"SAT gives: {agreement.text}"
        )
        yield Check("inv_freq", "ok", detail, agreement.to_json())
    else:
        same = "the file has no table" if change is None else "the stored table is the exact one"
        yield Check("inv_freq", "ok", same)


def _target_dtype(contents: Contents) -> str | None:
    """What every tensor was converted to; None: each kept its own."""
    if contents.manifest is not None:
        dtype = contents.manifest.get("options", {}).get("dtype")
        return None if dtype is None else str(dtype)
    return contents.dtype


def _rope_dtype(config: CogVLMConfig) -> str | None:
    return config.rope_dtype if config.rope_inv_freq is not None else None


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
