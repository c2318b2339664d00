"""Laws of the command line: quick help, one-line errors, results on stdout and nothing else there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import sentencepiece

from cogbatch.cli import main

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
COMMANDS = (
    *("convert", "verify", "export-sat", "doctor", "run", "plan", "retry-failed"),
    *("sweep", "submit", "logs", "stop", "list", "status", "generate", "show", "report", "export"),
)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command run in this process."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    printed = capsys.readouterr()
    return int(caught.value.code or 0), printed.out, printed.err


def spawn(program: str, *arguments: str, cache: Path) -> list[str]:
    """Lines on stdout of a Python program in a process of its own."""
    env = os.environ | {"COGBATCH_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    (cache / "stderr.txt").write_text(done.stderr)
    return done.stdout.splitlines()


def test_help_imports_neither_torch_nor_ray(tmp_path: Path) -> None:
    program = (
        "import sys; from cogbatch.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print({'torch', 'ray', 'transformers', 'pyarrow'} & set(sys.modules))"
    )
    assert spawn(program, cache=tmp_path)[-1] == "set()"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_two_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, command, "--help")
    assert code == 0
    assert out.count(f"\n  cogbatch {command} ") == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_with_a_value_shows_its_default(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = call(capsys, command, "--help")
    options = " ".join(out.partition("Options:")[2].split()).split(" --")[1:]
    for option in options:
        if "<" in option and "KEY=VALUE" not in option:
            assert "[default: " in option or "[required]" in option, option


def test_the_commands_are_those_that_work(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "--help")
    listed = [line.split()[0] for line in out.partition("Commands:")[2].splitlines() if line.strip()]
    assert tuple(listed) == COMMANDS


def test_version_names_what_results_depend_on(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--version")
    assert code == 0
    for package in ("cogbatch", "Python", "torch", "transformers", "ray", "pyarrow"):
        assert package in out


def test_an_error_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "run", "nowhere.yaml")
    assert (code, out) == (1, "")
    assert (
        err == "Error: nowhere.yaml: cannot read the spec: No such file or directory. Expected a YAML file.\n"
    )


def test_debug_shows_where_an_error_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = call(capsys, "run", "nowhere.yaml", "--debug")
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("Error: nowhere.yaml")


@pytest.mark.parametrize("wrong", [("run",), ("run", "a", "b"), ("run", "a", "--limit", "0"), ("fly",)])
def test_wrong_usage_exits_2(wrong: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, *wrong)[0] == 2


def test_flags_beat_the_spec_and_their_mistakes_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("model: {checkpoint: m}\ninput: {path: p, limit: 5}\noutput: {path: o}\n")
    code, _, err = call(capsys, "plan", str(job), "--set", "generation.sed=1", "--set", "name=[]")
    assert code == 1
    assert "2 mistakes" in err
    assert "did you mean seed?" in err


def test_plan_finds_what_run_would_refuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "photo.jpg").touch()
    demo = ("plan", "jobs/demo/job.yaml", "--set")
    code, _, err = call(capsys, *demo, f"output.path={tmp_path / 'data'}")
    assert (code, "holds something else than a run (photo.jpg)" in err) == (1, True)
    sat = tmp_path / "agent"
    shutil.copytree("jobs/demo/checkpoint", sat)
    config = json.loads((sat / "model_config.json").read_text())
    (sat / "model_config.json").write_text(json.dumps({**config, "model_class": "CogAgentModel"}))
    code, _, err = call(capsys, *demo, f"model.checkpoint={sat}")
    assert (code, "CogAgent" in err) == (1, True)
    quantized = ("--set", "model.quantization=int8", "--set", "cluster.gpus_per_worker=1")
    code, _, err = call(capsys, *demo, f"output.path={tmp_path / 'run'}", *quantized)
    assert (code, "int8 does not work with dtype float32 on cuda" in err) == (1, True)


@pytest.fixture
def tokenizer_dir(tmp_path: Path) -> Path:
    """A Llama-style tokenizer that fits the golden models' 512 entries."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["describe the image", "how many shapes are there"] * 20),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=300,
        model_type="bpe",
        byte_fallback=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        pad_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = json.dumps({"tokenizer_class": "LlamaTokenizer", **tokens})
    (folder / "tokenizer_config.json").write_text(config)
    return folder


ROAD = """
import json, sys
from cogbatch.cli import main

for number, command in enumerate(json.loads(sys.argv[1])):
    try:
        main(command)
    except SystemExit as end:
        assert not end.code, end.code
    if sys.modules.pop("ray", None):
        print("Ray imported by command", number)
"""


def test_a_sweep_is_checked_and_listed_without_running(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    there = ("--set", "input.path=jobs/demo/data/*.parquet", "--set", f"output.path={tmp_path / 's'}")
    sweep = ("sweep", "jobs/demo/sweep.yaml", *there, "--limit", "8")
    code, out, err = call(capsys, *sweep, "--dry-run", "--json")
    result = json.loads(out.splitlines()[-1])
    assert (code, err, len(result["points"])) == (0, "", 12)
    assert {point["rows"] for point in result["points"]} == {8}
    code, out, err = call(capsys, *sweep, "--recommend", "corect>=0.9")
    assert (code, out) == (1, "")
    assert err == "Error: --recommend 'corect>=0.9': corect: is no metric (did you mean correct?)\n"
    code, out, err = call(capsys, *sweep, "--set", "judge.checker=no_such_module:check")
    assert (code, out) == (1, "")
    assert "no_such_module cannot be imported" in err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("command", [["show"], ["retry-failed"], ["export", "--format", "llava"]])
def test_the_directory_of_a_sweep_is_no_run_and_said_to_be_a_sweep(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "sweep.json").write_text("{}")
    out = [str(tmp_path / "out")] if command[0] == "export" else []
    code, _, err = call(capsys, command[0], str(tmp_path), *out, *command[1:])
    assert code == 1
    assert err.endswith(f"{tmp_path} is a sweep, not a run; name one of its points: {tmp_path}/points/NAME\n")
    code, said, _ = call(capsys, "status", str(tmp_path))
    assert code == 0
    assert said == f"{tmp_path}: a sweep, stopped, 0 of 0 points finished, 0 of 0 rows, 0 errors\n"


@pytest.mark.ray
def test_from_a_sat_checkpoint_to_parts_and_one_answer(tmp_path: Path, tokenizer_dir: Path) -> None:
    """convert, plan, run, run again, generate: the road through the house, on a real (tiny, random) model."""
    model, run, data, job = (tmp_path / name for name in ("model", "run", "data.jsonl", "job.yaml"))
    image = str(GOLDEN / "image.png")
    rows = [{"image": image, "note": n} for n in range(5)] + [{"image": "gone.png", "note": 5}]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    job.write_text(
        f"model: {{checkpoint: {model}, dtype: float32}}\n"
        f"input: {{path: {data}, prompt: Describe the image., columns: [note], image_root: /}}\n"
        f"generation: {{num_candidates: 3, max_new_tokens: 4}}\n"
        f"output: {{path: {run}, shard_size: 2}}\n"
    )
    convert = ["convert", str(GOLDEN / "tiny-a" / "ckpt"), str(model), "--tokenizer", str(tokenizer_dir)]
    ask = ["generate", str(model), "-i", image, "-p", "how many shapes are there", "-n", "2"]
    road = [
        [*convert, "--version", "base", "--dtype", "float32", "--json"],
        ["plan", str(job), "--json"],
        [*ask, "--max-new-tokens", "3", "--json"],
        ["run", str(job), "--json"],
        ["run", str(job), "--json"],
    ]
    lines = spawn(ROAD, json.dumps(road), cache=tmp_path)
    converted, planned, answered, first, again = (json.loads(line) for line in lines if line.startswith("{"))
    assert [line for line in lines if line.startswith("Ray")] == ["Ray imported by command 3"]
    assert converted["has_tokenizer"] is True
    assert (planned["rows"], planned["shards"]) == (6, 3)
    estimate = planned["estimate"]
    assert (estimate["sampled"], estimate["sampled_errors"]) == (6, 1)  # gone.png
    assert estimate["most_output_tokens"] == 6 * 3 * 4
    assert estimate["memory"]["here"]["items"] > 0
    assert len(answered["candidates"]) == 2
    assert [first[key] for key in ("rows", "ok", "errors", "candidates")] == [6, 5, 1, 15]
    assert first["tokens_per_s"] > 0
    assert (again["rows"], again["shards_done_now"]) == (6, 0)

    parts = pq.read_table(run / "parts").to_pylist()
    assert sorted(row["note"] for row in parts) == list(range(6))
    assert {row["model_fingerprint"] for row in parts} == {first["model_fingerprint"]}
    texts = {str([c["token_ids"] for c in row["candidates"]]) for row in parts if row["error"] is None}
    assert len(texts) == 5, "each item has random numbers of its own"
    said = (tmp_path / "stderr.txt").read_text()
    assert "6/6 items" in said
    assert "WARNING" not in said, "Ray's chatter stays in logs/ray.log"
