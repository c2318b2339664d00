"""Laws of what a plan says of a job before it runs, with a model's side that is made up. No Ray."""

from __future__ import annotations

import functools
import http.server
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from fake_backend import FAKE, MakeSpec

from cogbatch.batch.estimate import known_speed, sample_rows
from cogbatch.batch.identity import identity_without_model
from cogbatch.batch.job import check_job, describe
from cogbatch.batch.plan import FINE, Plan, plan_job
from cogbatch.batch.spec import JobSpec, parse_spec
from cogbatch.batch.survey import Survey
from cogbatch.dataset import RunDirectory, open_dataset
from cogbatch.dataset.parts import write_part
from cogbatch.dataset.rows import Row
from cogbatch.dataset.schema import record, rows_to_table
from cogbatch.engine.fit import Fit
from cogbatch.errors import RunDirectoryError
from cogbatch.types import RequestOutput

ROOT = Path(__file__).parents[2]
GOLDEN, TOKENIZER = ROOT / "tests" / "golden", ROOT / "jobs" / "demo" / "tokenizer"


def text_of(plan: Plan) -> str:
    return "\n".join(plan.lines())


def test_tokens_are_counted_in_a_sample_and_bounded_by_what_is_asked_for(make_spec: MakeSpec) -> None:
    """40 rows of two and 40 of four words: a sample spread evenly has as many of both."""
    spec = make_spec(["say it"] * 40 + ["say it once more"] * 40, generation={"max_new_tokens": 10})
    plan = plan_job(spec, backend=FAKE)
    assert plan.estimate.sampled == 16
    assert plan.estimate.prompt_tokens == 80 * 3
    assert plan.estimate.most_output_tokens == 80 * 2 * 10
    assert "prompts: up to 4 tokens in the sample; about 240 in all" in text_of(plan)
    assert "output: at most 1,600 tokens, 20 an item in 2 rows" in text_of(plan)


def test_memory_is_set_against_a_cache_that_copies_the_prompt(make_spec: MakeSpec) -> None:
    """1 kB a token: 4 + 2 * 10 tokens an item, 2 * (4 + 10) with copies."""
    plan = plan_job(make_spec(["a b c d"], generation={"max_new_tokens": 10}), backend=FAKE)
    memory = plan.to_json()["estimate"]["memory"]
    assert (memory["item_bytes"], memory["expanded_item_bytes"]) == (24_000, 28_000)
    text = text_of(plan)
    assert "weights: 8.0 GB (float32); working memory: 1.0 GB" in text
    assert "for every row 28.0 kB, 1.2 times as much" in text


def test_devices_that_fit_alike_are_named_together_and_the_others_say_why(make_spec: MakeSpec) -> None:
    lines = plan_job(make_spec(["say"]), backend=FAKE).lines()
    assert "cards: 16 GB: 3 items at a time; 24 GB to 32 GB: 9 items at a time" in lines
    assert "this machine: no, the weights take 8.0 GB" in lines
    assert any("lower max_new_tokens or num_candidates" in line for line in lines)


def test_rows_that_would_be_errors_are_counted_with_the_commonest_reason(make_spec: MakeSpec) -> None:
    spec = make_spec(["say", "bad", "say", "bad"])
    with Path(spec.input.path).open("a") as file:
        file.write('{"id": "i4", "prompt": 5}\n')
    estimate = plan_job(spec, backend=FAKE).estimate
    assert [(kind.stage, kind.count) for kind in estimate.error_kinds] == [("prompt", 2), ("prompt", 1)]
    assert list(estimate.lines())[:2] == [
        "sample: 5 of 5 rows, 3 of them would be errors",
        "  2 x prompt/PromptError, for example: no",
    ]


def _of(spec: JobSpec, rows: Sequence[Row], here: Fit) -> Survey | None:
    found = FAKE.survey(spec, rows)
    return found and replace(found, here=here)


ROOMY = replace(FAKE, survey=lambda spec, rows: _of(spec, rows, Fit("this machine", 10**12, 9)))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    ("bad", "good", "max_error_rate", "fine"),
    [
        *[(0, 4, 0.05, True), (4, 0, 0.05, False), (4, 0, 1.0, False), (1, 0, 0.05, False)],
        # 1 of 16 at 5 % is as likely as not; 4 come once in 140 samples; 13 at 80 % are no surprise.
        *[(1, 15, 0.05, True), (4, 12, 0.05, False), (4, 12, 0.25, True), (13, 3, 0.8, True)],
        (1, 15, 0, False),
    ],
)
def test_a_sample_with_more_errors_than_the_job_bears_is_a_problem(
    make_spec: MakeSpec, bad: int, good: int, max_error_rate: float, fine: bool
) -> None:
    spec = make_spec(["bad"] * bad + ["say"] * good, errors={"max_error_rate": max_error_rate})
    plan = plan_job(spec, backend=ROOMY)
    assert (not plan.problems) == fine
    last = plan.lines()[-1]
    assert last == FINE if fine else last.startswith("problem: ") and "sampled row" in last
    assert plan.to_json()["problems"] == plan.problems


def test_a_gpu_that_this_machine_does_not_have_is_a_problem_where_workers_start_here(
    make_spec: MakeSpec,
) -> None:
    for gpus, here, address, fine in (
        *[(1, 0, "local", False), (2, 1, "local", False), (0.5, 1, "local", True), (0, 0, "local", True)],
        (1, 0, "auto", True),
    ):
        spec = make_spec(["say"], cluster={"gpus_per_worker": gpus, "address": address})
        plan = plan_job(spec, backend=ROOMY, gpus_here=here)
        assert (not plan.problems) == fine, (gpus, here, address)
    without = make_spec(["say"], cluster={"gpus_per_worker": 1})
    assert plan_job(without, backend=ROOMY, gpus_here=0).problems == (
        "cluster.gpus_per_worker is 1 and this machine has no GPUs; set it to 0 for the CPU, or"
        " cluster.address to auto on a cluster",
    )


def test_a_model_that_does_not_fit_this_machine_is_a_problem_where_workers_start_here(
    make_spec: MakeSpec,
) -> None:
    (problem,) = plan_job(make_spec(["say"]), backend=FAKE).problems
    assert problem.startswith(
        "the weights take 8.0 GB, this machine has 4.0 GB in all; set model.quantization"
    )
    assert not plan_job(make_spec(["say"], cluster={"address": "auto"}), backend=FAKE).problems
    busy = replace(FAKE, survey=lambda spec, rows: _of(spec, rows, Fit("this machine", 10**12, 0, "busy")))
    assert not plan_job(make_spec(["say"]), backend=busy).problems, "what is free now may change"
    (gpu,) = plan_job(make_spec(["say"], cluster={"gpus_per_worker": 1}), backend=FAKE, gpus_here=0).problems
    assert "GPU" in gpu


def test_a_finished_job_has_no_problems(make_spec: MakeSpec) -> None:
    spec = make_spec(["bad"] * 12, cluster={"max_workers": 1, "gpus_per_worker": 1})
    assert len(plan_job(spec, backend=FAKE, gpus_here=0).problems) == 2
    start(spec, done=(0, 1, 2))
    assert plan_job(spec, backend=FAKE, gpus_here=0).lines()[-1] == FINE


def test_an_image_that_the_job_may_fetch_is_fetched_by_the_plan(tmp_path: Path) -> None:
    """The real survey, on the demo's model."""
    handler = functools.partial(_Quiet, directory=str(GOLDEN))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/image.png"
        (tmp_path / "data.jsonl").write_text(json.dumps({"image": url}) + "\n")
        tree = {
            "model": {"checkpoint": str(ROOT / "jobs/demo/checkpoint"), "tokenizer": str(TOKENIZER)},
            "input": {"path": str(tmp_path / "data.jsonl"), "prompt": "Describe the image."},
            "output": {"path": str(tmp_path / "run")},
        }
        (problem,) = plan_job(parse_spec(tree)).problems
        assert problem == "every sampled row would be an error (1 of 1)"
        allowed = parse_spec(tree, overrides=["input.allow_private_addresses=true"])
        assert not plan_job(allowed).problems
        server.shutdown()


def test_no_speed_is_made_up(make_spec: MakeSpec) -> None:
    plan = plan_job(make_spec(["say"] * 8), price_per_hour=2.0, backend=FAKE)
    assert (plan.estimate.hours, plan.estimate.cost) == (None, None)
    assert "time and cost: unknown; measure with --limit, then plan with --items-per-s" in plan.lines()
    assert "time: unknown; measure with" in text_of(plan_job(make_spec(["say"]), backend=FAKE))


def test_hours_and_cost_follow_from_a_speed_and_a_price_of_one_worker(make_spec: MakeSpec) -> None:
    """7,200 rows, 2 workers of 0.5 items/s: two hours, and both workers are paid."""
    spec = make_spec(["say"] * 7200, output={"shard_size": 1000})
    plan = plan_job(spec, items_per_s=0.5, price_per_hour=3.0, backend=FAKE)
    assert plan.estimate.hours == pytest.approx(2.0)
    assert plan.estimate.cost == pytest.approx(12.0)
    assert (
        "time: 2.0 h for 7200 rows at 1 items/s (as given, 2 workers); cost: 12.00 for 2 workers at 3 an hour"
    ) in plan.lines()


def test_only_what_is_missing_takes_time(make_spec: MakeSpec) -> None:
    spec = make_spec(["say"] * 12, cluster={"max_workers": 1})
    start(spec, done=(0, 1))
    plan = plan_job(spec, items_per_s=1.0, backend=FAKE)
    assert plan.missing_shards == 1
    assert plan.estimate.rows_left == 4
    start(spec, done=(2,))
    assert "time: nothing is left to do" in plan_job(spec, items_per_s=1.0, backend=FAKE).lines()


def test_an_earlier_run_says_how_fast_it_was(tmp_path: Path) -> None:
    assert known_speed(tmp_path, items_per_s=None, workers=4) is None
    for text, speed in (('{"items_per_s": 2.5}', 2.5), ('{"items_per_s": 0.0}', None), ("[1]", None)):
        (tmp_path / "summary.json").write_text(text)
        found = known_speed(tmp_path, items_per_s=None, workers=4)
        assert (found and found.items_per_s) == speed
    given = known_speed(tmp_path, items_per_s=1.0, workers=4)
    assert given is not None
    assert given.items_per_s == 4.0


def test_a_model_that_was_not_fetched_yet_is_not_guessed_at(make_spec: MakeSpec) -> None:
    plan = plan_job(make_spec(["say"], model={"checkpoint": "owner/elsewhere"}), backend=FAKE)
    assert plan.to_json()["estimate"]["memory"] is None
    assert "tokens and memory: known once the checkpoint has been fetched" in text_of(plan)


def test_a_plan_is_json(make_spec: MakeSpec) -> None:
    plan = plan_job(make_spec(["say", "bad"]), items_per_s=1.0, price_per_hour=1.0, backend=FAKE)
    read = json.loads(json.dumps(plan.to_json()))
    assert read["rows"] == 2
    assert read["estimate"]["sampled_errors"] == 1
    assert [card["items"] for card in read["estimate"]["memory"]["cards"]] == [3, 9, 9]


@pytest.mark.parametrize(("rows", "count"), [(1, 16), (15, 16), (16, 16), (17, 16), (100, 16), (100, 1)])
def test_a_sample_is_spread_evenly_and_takes_no_row_twice(make_spec: MakeSpec, rows: int, count: int) -> None:
    spec = make_spec(["say"] * rows, output={"shard_size": 7})
    dataset = open_dataset(spec.input)
    numbers = [row.input_row for row in sample_rows(dataset, dataset.shards(7), count=count)]
    assert len(set(numbers)) == len(numbers) == min(rows, count)
    gaps = [b - a for a, b in pairwise(numbers)]
    assert all(abs(gap - rows / len(numbers)) < 1 for gap in gaps)


def start(spec: JobSpec, *, done: tuple[int, ...]) -> None:
    """The run directory of a job of which some shards are done."""
    dataset = open_dataset(spec.input)
    shards = dataset.shards(spec.output.shard_size)
    run = RunDirectory(spec.output.path)
    known = identity_without_model(spec, dataset_fingerprint=dataset.fingerprint, shards=shards)
    run.start({"job_fingerprint": "j", "identity": known})
    prints = {"model_fingerprint": "m", "job_fingerprint": "j"}
    for index in done:
        records = [record(row, RequestOutput(row.id), **prints) for row in dataset.read(shards[index])]
        write_part(run.parts, shards[index].part_name, rows_to_table(records, carried=dataset.carried))


def test_a_started_job_is_opened_again_without_reading_its_input(make_spec: MakeSpec) -> None:
    """The lines are overwritten, which the file's size and time do not tell: nobody may notice."""
    spec = make_spec(["say"] * 100)
    dataset, shards = check_job(spec, FAKE)
    model = FAKE.prepare(spec.model, str)
    run = RunDirectory(spec.output.path)
    job = run.start(describe(spec, model, dataset, shards, stored={}))
    data = Path(spec.input.path)
    before = data.stat()
    lines = data.read_bytes()
    data.write_bytes(b"0" * before.st_size)
    os.utime(data, ns=(before.st_mtime_ns, before.st_mtime_ns))
    again, same_shards = check_job(spec, FAKE)
    assert same_shards == shards
    described = describe(spec, model, again, same_shards, stored=job)
    assert described["job_fingerprint"] == job["job_fingerprint"]
    assert run.start(described) == job
    data.write_bytes(lines)
    os.utime(data, (1, 1))
    with pytest.raises(RunDirectoryError, match="belongs to another job: the input files changed"):
        plan_job(spec, backend=FAKE)
