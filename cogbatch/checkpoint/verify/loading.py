"""One load and one inference of a model directory, in a process of its own.

The process sees a view of the directory: links to configuration, weights and tokenizer, and the code files
that this version ships. What else lies in the directory (transformers would run custom_generate/generate.py,
for example) cannot be found, so it cannot be run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file

from cogbatch.checkpoint.layout import write_code
from cogbatch.checkpoint.manifest import TOKENIZER_FILES, tokenizer_files, weight_files
from cogbatch.checkpoint.safetensors_writer import INDEX
from cogbatch.checkpoint.verify import hf_side
from cogbatch.checkpoint.verify.check import Check
from cogbatch.checkpoint.verify.directory import Contents
from cogbatch.checkpoint.verify.hf_side import HfReport, HfRequest
from cogbatch.checkpoint.verify.probes import GREEDY_TOKENS, make_probes, to_tensors
from cogbatch.checkpoint.verify.process import alone, run_programs, with_cogbatch, write_request
from cogbatch.checkpoint.verify.threads import some

PROMPT = "Describe the image."
PROBES, RESULTS = "probes.safetensors", "hf.safetensors"
# Enough to see that images and text both go through.
_ONE_INFERENCE = ("image_short",)


def check_loading(
    folder: Path, contents: Contents, *, work: Path, for_parity: bool, on_check: Callable[[Check], None]
) -> tuple[Check, ...]:
    """Loads and runs the directory.

    Args:
        work: an empty folder; PROBES and RESULTS are left in it.
        for_parity: in float32, all probes, continued by GREEDY_TOKENS; else as stored, and one probe.
    """
    done: list[Check] = []

    def report(name: str, ill: str, well: str) -> None:
        done.append(Check(name, "FAILED" if ill else "ok", ill or well))
        on_check(done[-1])

    if contents.config is None or not contents.is_readable:
        report("loads", "not tried: configuration or weights cannot be read; mend them first", "")
        return tuple(done)
    probes = make_probes(contents.config)
    save_file(
        to_tensors({name: probes[name] for name in (probes if for_parity else _ONE_INFERENCE)}), work / PROBES
    )
    has_tokenizer = bool(tokenizer_files(folder))
    request = HfRequest(
        model=str(_view(folder, work / "model")),
        own_code=contents.runs_own_code,
        dtype="float32" if for_parity else "auto",
        probes=str(work / PROBES),
        num_greedy=GREEDY_TOKENS if for_parity else 0,
        prompt=PROMPT if has_tokenizer else None,
        out=str(work / RESULTS),
        report=str(work / "hf.json"),
    )
    ill, seen = _run(request, work)
    if seen is None:
        report("loads", f"the process that loads it ended: {ill}", "")
        return tuple(done)
    how = "plain transformers, trust_remote_code" if contents.runs_own_code else "cogbatch's classes"
    report(
        "loads",
        _loading_ill(seen),
        f"{how}: {seen['model_class']} in {seen['dtype']}, nothing initialised anew",
    )
    if seen["failed"] == "load":
        return tuple(done)
    wrong = f"NaN or infinity in the logits of {some(seen['not_finite'])}" if seen["not_finite"] else ""
    if seen["failed"] == "inference":
        wrong = seen["error"]
    report("inference", wrong and f"{wrong}; convert again", "finite logits of an image and text")
    if has_tokenizer and not wrong:
        failed = f"{seen['error']}; give another --tokenizer" if seen["failed"] == "generate" else ""
        report("generates", failed, f"{PROMPT!r} about a grey gradient -> {seen['text']!r}")
    elif not has_tokenizer:
        done.append(Check("generates", "skipped", "no tokenizer; convert with --tokenizer DIR_OR_HUB_ID"))
        on_check(done[-1])
    return tuple(done)


def _view(folder: Path, view: Path) -> Path:
    view.mkdir()
    names = {"config.json", "generation_config.json", INDEX, *TOKENIZER_FILES}
    names |= {file.name for file in weight_files(folder)}
    for name in names:
        if (folder / name).is_file():
            (view / name).symlink_to((folder / name).resolve())
    write_code(view)
    return view


def _run(request: HfRequest, work: Path) -> tuple[str, HfReport | None]:
    file = write_request(work / "hf-request.json", request)
    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(work / "modules"),
        "TOKENIZERS_PARALLELISM": "false",
    }
    if request["own_code"]:
        ill = run_programs([alone(Path(hf_side.__file__), file)], [offline], logs=work)
    else:
        command, environment = with_cogbatch(hf_side.__name__, file)
        ill = run_programs([command], [environment | offline], logs=work)
    if ill:
        return ill, None
    report: HfReport = json.loads(Path(request["report"]).read_text(encoding="utf-8"))
    return "", report


def _loading_ill(seen: HfReport) -> str:
    if seen["failed"] == "load":
        return f"{seen['error']}; convert again"
    ills = (
        ("newly initialised", seen["missing"]),
        ("unknown", seen["unexpected"]),
        ("left on meta", seen["on_meta"]),
    )
    texts = [f"{len(names)} tensors {ill}: {some(names, 3)}" for ill, names in ills if names]
    return f"{'; '.join(texts)}; convert again" if texts else ""
