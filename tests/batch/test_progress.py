"""Laws of progress: the numbers, and a plain stream that is not flooded."""

from __future__ import annotations

import io
import re

from rich.console import Console

from cogbatch.batch.progress import PlainProgress, RichProgress, Status, clock, open_progress, percent


def test_speed_counts_this_run_only() -> None:
    status = Status(rows=60, rows_total=100, rows_before=40, tokens=500, seconds=70.0, working_s=10.0)
    assert (status.items_per_s, status.tokens_per_s, status.eta_s) == (2.0, 50.0, 20.0)


def test_nothing_is_known_before_the_first_row() -> None:
    assert Status(rows=0, rows_total=5).eta_s is None
    assert Status(rows=0, rows_total=5, seconds=3.0, working_s=3.0).line().endswith("ETA -")


def test_a_line_names_every_number() -> None:
    line = Status(rows=6, rows_total=12, errors=1, tokens=30, workers=2, seconds=9.0, working_s=3.0).line()
    assert line == "6/12 items  2.0 items/s  10 tokens/s  1 errors  2 workers  ETA 0:03"
    assert "  0 workers (2 loading)  " in Status(rows=0, rows_total=12, loading=2).line()


def test_plain_progress_is_sparse_but_never_leaves_out_the_end() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream, every_s=1000)
    for rows in (1, 2, 3, 4, 4):
        progress.update(Status(rows=rows, rows_total=4))
    assert [line.split()[0] for line in stream.getvalue().splitlines()] == ["1/4", "4/4"]


def test_a_stream_without_a_file_gets_plain_lines() -> None:
    stream = io.StringIO()
    open_progress(stream).say("hello")
    assert stream.getvalue() == "hello\n"


def test_clock_reads_as_people_write_it() -> None:
    assert [clock(5), clock(65), clock(3661)] == ["0:05", "1:05", "1:01:01"]


def test_the_live_display_shows_bar_and_numbers_at_any_width() -> None:
    for width in (60, 80, 180):
        stream = io.StringIO()
        console = Console(file=stream, force_terminal=True, width=width, _environ={})
        progress = RichProgress(stream, console=console)
        progress.update(Status(rows=40, rows_total=128, errors=1, tokens=900, workers=2, working_s=10))
        progress.close()
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
        assert "40/128 items" in shown, width
        assert "ETA" in shown, width
        assert "━" in shown


def test_bytes_are_said_with_their_speed_and_not_of_what_is_quick() -> None:
    said: list[str] = []
    report = percent("converting", said.append, every_s=0.0)
    report(13_200_000_000, 33_000_000_000)
    assert re.fullmatch(r"converting: 40 % \(13\.2 of 33\.0 GB, \d+ MB/s\)", said[0])
    quick = percent("converting", said.append)
    quick(1, 2)
    quick(2, 2)
    assert len(said) == 1
