"""The bar shows rates and what went wrong; without a terminal there are lines instead, also while nothing advances."""

import io
import re
import threading
import time

from rich.console import Console

from maskstream.shards.progress import ProgressBar, as_progress


def drive(console: Console, line_s: float) -> None:
    with ProgressBar(console, line_s=line_s) as bar:
        bar.phase("reading")
        bar.phase("encode", 100, 40)
        bar.advance(1)
        bar.tally("rejects", 3)
        bar.tally("retries")
        bar.tally("restarts", 0)
        bar.advance(1)
        bar.phase("verify train", 7, unit="kB")
        bar.advance(7)


def read(said: io.StringIO) -> list[str]:
    return [" ".join(line.split()) for line in said.getvalue().splitlines()]


def test_a_log_gets_a_line_when_a_phase_starts_and_when_it_ends() -> None:
    said = io.StringIO()
    drive(Console(file=said, width=40), line_s=60)
    lines = read(said)
    assert [re.sub(" [0-9.,]+ (sources/s|s each);| 0:.* left;", "", line) for line in lines[:2]] == [
        "reading",
        "encode: 42 of 100 sources; 3 rejects, 1 retry",
    ]
    assert lines[2].startswith("verify train: 7 of 7 kB")
    assert len(lines) == 3


def test_a_log_gets_lines_while_nothing_advances() -> None:
    """So a command that compiles, or waits for a store, shows that it lives; then its figures."""
    said = io.StringIO()
    with ProgressBar(Console(file=said, width=40), line_s=0.1) as bar:
        bar.phase("reading")
        time.sleep(1.2)
        bar.phase("train", 9, unit="steps")
        bar.advance(2)
        bar.note("loss 0.5")
        time.sleep(0.4)
    lines = read(said)
    assert "reading: 0:00:01 elapsed" in lines
    assert [line for line in lines if line.startswith("train: 2 of 9 steps") and line.endswith("loss 0.5")]
    assert "maskstream progress" not in {thread.name for thread in threading.enumerate()}


def test_it_shows_more_after_its_end() -> None:
    """A trainer ends its display, and the command that called it tests the model."""
    said = io.StringIO()
    bar = ProgressBar(Console(file=said, width=40), line_s=0.1)
    for name in ("train", "test"):
        with bar:
            bar.phase(name, 3)
            time.sleep(0.3)
            bar.advance(3)
    lines = read(said)
    assert lines[0] == "train"
    assert [line for line in lines if line.startswith("test: 0 of 3 sources")]
    assert lines[-1].startswith("test: 3 of 3 sources")


def test_a_terminal_gets_a_bar_and_no_lines() -> None:
    said = io.StringIO()
    drive(Console(file=said, width=200, force_terminal=True), line_s=0)
    assert "42 of 100 sources" in said.getvalue()
    assert "3 rejects, 1 retry" in said.getvalue()
    assert "encode: 42" not in said.getvalue()
    assert "reading" not in said.getvalue().rpartition("verify")[0].rpartition("encode")[2]


def test_a_function_may_be_told_how_much_of_a_phase_is_done() -> None:
    told: list[tuple[int, int]] = []
    progress = as_progress(lambda done, of: told.append((done, of)))
    with progress:
        progress.phase("reading", 10, 4)
        progress.advance(2)
        progress.note("half")
        progress.phase("comparing")
        progress.advance(1)
    assert told == [(6, 10), (1, 0)]
    assert as_progress(progress) is progress
