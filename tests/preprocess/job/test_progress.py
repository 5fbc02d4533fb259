"""The bar shows rates and what went wrong; without a terminal there are lines instead."""

import io

import pytest
from rich.console import Console

from maskstream.preprocess.job.progress import Progress, ProgressBar, ProgressFile


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


def test_a_file_for_prometheus_has_the_phase_and_what_went_wrong(tmp_path):
    parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is not installed")
    path, shown = tmp_path / "job.prom", Recorded()

    def read() -> dict[tuple[str, ...], float]:
        samples = [s for family in parser.text_string_to_metric_families(path.read_text()) for s in family.samples]
        return {(sample.name, *sample.labels.values()): sample.value for sample in samples}

    with ProgressFile(path, "k400", shown) as progress:
        progress.phase("encode", 10, 3)
        assert read()["maskstream_job_running", "k400"] == 1
        for _ in range(4):
            progress.advance(1)
        progress.advance(-1)
        progress.tally("rejects", 2)
    assert read() == {
        ("maskstream_job_done", "k400", "encode", "sources"): 6,
        ("maskstream_job_total", "k400", "encode", "sources"): 10,
        ("maskstream_job_problems", "k400", "rejects"): 2,
        ("maskstream_job_running", "k400"): 0,
    }
    assert shown.told == ["phase", "advance", "advance", "advance", "advance", "advance", "tally"]


class Recorded(Progress):
    def __init__(self) -> None:
        self.told: list[str] = []

    def phase(self, name: str, total: int, done: int = 0, unit: str = "sources") -> None:
        self.told.append("phase")

    def advance(self, units: int) -> None:
        self.told.append("advance")

    def tally(self, what: str, count: int = 1) -> None:
        self.told.append("tally")
