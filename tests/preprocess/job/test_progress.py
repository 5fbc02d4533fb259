"""A file of the progress for a monitoring system."""

import pytest

from maskstream.preprocess.job.progress import ProgressFile
from maskstream.shards.progress import Progress


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

    def phase(self, name: str, total: int | None = None, done: int = 0, unit: str = "sources") -> None:
        self.told.append("phase")

    def advance(self, units: float) -> None:
        self.told.append("advance")

    def tally(self, what: str, count: int = 1) -> None:
        self.told.append("tally")
