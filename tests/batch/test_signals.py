"""Signals: what is held back, and jobs that end by one."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from fake_backend import MakeSpec
from job_files import ENVIRONMENT, check_rows, driver_of, wait_for_worker

from cogbatch.batch.signals import held_back
from cogbatch.cli.interrupt import resumable

PROGRAM = """
import json, signal, sys, fake_backend, ray, typer
from cogbatch.batch.job import run_job
from cogbatch.batch.spec import parse_spec
from cogbatch.cli.interrupt import resumable
ray.cloudpickle.register_pickle_by_value(fake_backend)
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup
spec = parse_spec(json.load(open(sys.argv[1])))
try:
    with resumable("Parts are kept.") as progress:
        run_job(spec, backend=fake_backend.FAKE, progress=progress)
except typer.Exit as err:
    sys.exit(err.exit_code)
"""


@pytest.fixture(autouse=True)
def _sigint() -> Iterator[None]:
    """In a process that a shell started in the background it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_signal_waits_for_the_end_of_the_block() -> None:
    done = False

    def work() -> None:
        nonlocal done
        with held_back():
            signal.raise_signal(signal.SIGINT)
            done = True

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done


def test_handlers_are_again_those_from_before_whatever_the_block_installs() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with held_back():
            signal.raise_signal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            assert not heard
        assert heard == [signal.SIGTERM]
        with pytest.raises(SystemExit), held_back():  # what Ray's own handler does
            raise SystemExit(signal.SIGTERM)
        assert heard == [signal.SIGTERM] * 2
        with pytest.raises(SystemExit, match="a library"), held_back():
            raise SystemExit("a library")
        assert heard == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with held_back():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        for _ in range(5):
            signal.raise_signal(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.parametrize(("first", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_ends_with_one_line_whatever_comes_while_it_is_said(
    capsys: pytest.CaptureFixture[str], first: signal.Signals, code: int
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        with resumable("Parts are kept.") as progress:
            close, done = progress.close, []

            def close_slowly() -> None:
                if not done:
                    done.append(signal.raise_signal(signal.SIGINT))
                close()

            progress.close = close_slowly  # type: ignore[method-assign]
            signal.raise_signal(first)

    with pytest.raises(typer.Exit) as caught:
        work()
    assert caught.value.exit_code == code
    word = "Terminated" if first is signal.SIGTERM else "Interrupted"
    assert capsys.readouterr().err == f"{word}. Parts are kept.\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_third_breaks_the_block_off() -> None:
    came = 0

    def work() -> None:
        nonlocal came
        with held_back():
            for _ in range(5):
                came += 1
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert came == 3


@pytest.mark.usefixtures("capsys")
def test_outside_the_main_thread_nothing_is_touched() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def block() -> None:
        with held_back(), resumable("Parts are kept."):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at_work", "signals", "code"),
    [
        (False, [signal.SIGINT], 130),
        (False, [signal.SIGTERM], 143),
        (True, [signal.SIGTERM], 143),
        (True, [signal.SIGINT, signal.SIGINT], 130),
        (True, [signal.SIGTERM, signal.SIGTERM], 143),
        (True, [signal.SIGHUP], 129),
    ],
    ids=[
        *("SIGINT-while-ray-starts", "SIGTERM-while-ray-starts", "SIGTERM", "two-SIGINT", "two-SIGTERM"),
        "SIGHUP",
    ],
)
def test_a_signal_ends_a_job_with_one_line_and_leaves_no_process(
    make_spec: MakeSpec, tmp_path: Path, at_work: bool, signals: list[signal.Signals], code: int
) -> None:
    spec = make_spec(["sleep 0.1"] * 200)
    mark = f"COGBATCH_TEST={tmp_path}"
    errors = tmp_path / "stderr"
    with errors.open("wb") as stderr:
        driver = subprocess.Popen(
            driver_of(spec, tmp_path, program=PROGRAM),
            env=ENVIRONMENT | dict([mark.split("=", 1)]),
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    try:
        if at_work:
            wait_for_worker(spec, items=20)
        else:
            deadline = time.monotonic() + 60
            while not any("gcs_server" in line for line in having(mark)):
                assert time.monotonic() < deadline, errors.read_text()
                time.sleep(0.01)
        for one in signals:
            driver.send_signal(one)
            time.sleep(0.1)
        assert driver.wait(90) == code, errors.read_text()
    finally:
        driver.kill()
    deadline = time.monotonic() + 30
    while left := having(mark):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    said = errors.read_text().splitlines()
    word = "Interrupted" if signal.SIGINT in signals else "Terminated"
    assert said[-1] == f"{word}. Parts are kept."
    assert "Traceback" not in errors.read_text()
    subprocess.run(driver_of(spec, tmp_path), env=ENVIRONMENT, check=True, capture_output=True)
    check_rows(spec, 200)


def having(mark: str) -> list[str]:
    """Command lines of the processes with that in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text().replace("\0", " ")[:100])
        except OSError:
            continue
    return found
