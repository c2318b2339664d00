"""Laws of drivers that are killed or that meet, each in a process and on a Ray of its own."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest
from fake_backend import FAKE, MakeSpec
from job_files import ENVIRONMENT, began, check_rows, driver_of, rows_of, start_driver

from cogbatch.batch.job import run_job
from cogbatch.batch.spec import JobSpec

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

KILLS = 20
IN_FLIGHT = 2 * 2 * 4  # items: workers x shards each x items of a shard


def elsewhere(spec: JobSpec, number: int) -> JobSpec:
    """The same job in a run directory of its own."""
    output = spec.output.model_copy(update={"path": f"{spec.output.path}-{number}"})
    return spec.model_copy(update={"output": output})


@pytest.mark.usefixtures("local_ray")
def test_a_driver_killed_at_twenty_random_moments_loses_nothing_and_repeats_little(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    """Moments of starting, running, isolating a row that kills its process, committing, and the end.

    Until twenty kills were made, a job that came to its end is followed by the same one elsewhere.
    """
    prompts = ["sleep 0.05"] * 30 + ["die"] + ["sleep 0.05"] * 89
    given = make_spec(prompts, errors={"shard_attempts": 1})
    rng = random.Random(0)
    begin = time.monotonic()
    assert start_driver(elsewhere(given, 0), tmp_path).wait() == 0
    undisturbed_s = time.monotonic() - begin
    kills = 0
    number = 1
    while kills < KILLS:
        spec, killed_here, ended = elsewhere(given, number), 0, False
        while kills < KILLS and not ended:
            driver = start_driver(spec, tmp_path)
            try:
                ended = driver.wait(rng.uniform(0, undisturbed_s)) == 0
            except subprocess.TimeoutExpired:
                driver.kill()
                driver.wait()
                kills += 1
                killed_here += 1
            if (Path(spec.output.path) / "parts").exists():
                rows_of(spec)  # no row twice, at any moment
        run_job(spec, backend=FAKE)
        check_rows(spec, 120, errors=("i30",))
        assert not list((Path(spec.output.path) / "staging").iterdir())
        begun = began(spec)
        del begun["i30"]  # each run may try it anew
        redone = begun.total() - 119
        assert redone <= (killed_here + 1) * IN_FLIGHT + 3, "plus the shard that is taken apart"
        number += 1


def test_of_two_drivers_started_at_once_one_is_refused_and_the_other_ends_the_job(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec(["sleep 0.2"] * 40)
    command = driver_of(spec, tmp_path)
    pair = [
        subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ends = [(*driver.communicate(), driver.returncode) for driver in pair]
    assert sorted(code for _, _, code in ends) == [0, 1]
    (refused,) = (err for _, err, code in ends if code)
    assert "in use by another driver (pid " in refused
    check_rows(spec, 40)
    assert began(spec).total() == 40
