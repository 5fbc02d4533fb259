"""The bar shows rates and what went wrong; without a terminal there are lines instead."""

import io

from rich.console import Console

from maskstream.preprocess.job.progress import ProgressBar


def drive(console, line_s):
    with ProgressBar(console, line_s=line_s) as bar:
        bar.phase("encode", 100, 40)
        bar.advance(1)
        bar.tally("rejects", 3)
        bar.tally("retries")
        bar.tally("restarts", 0)
        bar.advance(1)
        bar.phase("verify train", 7, unit="kB")
        bar.advance(7)


def test_a_log_gets_lines():
    said = io.StringIO()
    drive(Console(file=said, width=200), line_s=0)
    lines = [" ".join(line.split()) for line in said.getvalue().splitlines()]
    assert any(line.startswith("encode: 41 of 100 sources") for line in lines)
    assert any(line.startswith("encode: 42 of 100 sources") and line.endswith("3 rejects, 1 retry") for line in lines)
    assert any(line.startswith("verify train: 7 of 7 kB") and "rejects" not in line for line in lines)


def test_a_log_gets_no_more_than_a_line_a_minute():
    said = io.StringIO()
    drive(Console(file=said, width=200), line_s=60)
    assert " of 100 sources" not in said.getvalue()


def test_a_terminal_gets_a_bar_and_no_lines():
    said = io.StringIO()
    drive(Console(file=said, width=200, force_terminal=True), line_s=0)
    assert "42/100" in said.getvalue()
    assert "3 rejects, 1 retry" in said.getvalue()
    assert " of 100 sources" not in said.getvalue()
