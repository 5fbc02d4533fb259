"""The report of a finished split says what all runs and machines did, also those of parts that were killed."""

import json
import os

import pytest

from maskstream.preprocess.executors.local import LocalExecutor
from maskstream.preprocess.job import ledger
from maskstream.preprocess.job.report import Effort, make_report
from maskstream.preprocess.job.task import WrittenShard
from maskstream.preprocess.raw import files as raw_files
from maskstream.shards.format.records import RECORDS
from maskstream.shards.format.sample import DatasetInfo, Reject

from ...attacks.processes import workers_of
from ...attacks.shard_kills import N_IMAGES, pictures
from .folder_job import Told
from .picture_job import run


@pytest.fixture
def raw(tmp_path):
    pictures(tmp_path / "raw", 0)
    return tmp_path / "raw"


def report(out):
    return json.loads((out / "train" / RECORDS / "report.json").read_bytes())


def test_parts_on_two_machines(raw, tmp_path, monkeypatch):
    for number, name in ((1, "alpha"), (2, "beta")):
        monkeypatch.setattr("socket.gethostname", lambda name=name: name)
        run(raw, tmp_path / "out", part=(number, 2))
        assert not (tmp_path / "out/train" / RECORDS / "report.json").exists()
    run(raw, tmp_path / "out", finish=True)
    found = report(tmp_path / "out")
    assert {name: one["shards"] for name, one in found["machines"].items()} == {"alpha": 3, "beta": 3}
    assert (found["sources"], found["counts"]["samples"], found["rejects"]) == (N_IMAGES, N_IMAGES - 1, {"decode": 1})
    assert 0 < found["busy_s"] <= found["wall_s"] + 0.1
    assert found["cpu_s"] == pytest.approx(sum(one["cpu_s"] for one in found["machines"].values()), abs=0.01)
    assert found["libraries"] == ledger.libraries("image")
    assert (found["retries"], found["restarts"]) == (0, 0)


class Killing:
    """Kills the process of the first task once."""

    def __init__(self):
        self.killed = False

    def run(self, work, tasks):
        others = {*workers_of(os.getpid())}  # of loaders in other tests
        for event in LocalExecutor(1).run(work, tasks):
            if not self.killed:
                self.killed = True
                for child in {*workers_of(os.getpid())} - others:
                    os.kill(child, 9)
            yield event


def test_what_went_wrong_is_counted_and_shown(raw, tmp_path, monkeypatch):
    told = Told()
    run(raw, tmp_path / "out", workers=None, executor=Killing(), progress=told)
    assert report(tmp_path / "out")["restarts"] == 1
    assert sorted(told.tallies) == ["rejects", "restarts"]


def test_retries_are_counted(raw, tmp_path, monkeypatch):
    real, failed = raw_files.read_state, []

    def flaky(path):
        if path.name == "4.png" and not failed:
            failed.append(path)
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(raw_files, "read_state", flaky)
    told = Told()
    run(raw, tmp_path / "out", progress=told)
    assert report(tmp_path / "out")["retries"] == 1
    assert sorted(told.tallies) == ["rejects", "retries"]


def test_a_new_run_over_the_records_keeps_their_efforts(raw, tmp_path):
    run(raw, tmp_path / "out")
    before = report(tmp_path / "out")
    next((tmp_path / "out/train").glob("manifest*.parquet")).write_bytes(b"damaged")
    run(raw, tmp_path / "out")
    assert report(tmp_path / "out") == before


def test_records_of_earlier_versions_have_no_effort():
    old = WrittenShard(shard=None, rejects=(Reject(source="a", stage="open", reason="is empty"),))
    assert WrittenShard.from_parts(old.to_parts()) == old
    info = DatasetInfo(dataset="d", split="s", modality="image", profile="p", label_names=(), settings={"sources": 1})
    found = make_report(info, {"samples": 0}, [], old.rejects, {})
    assert (found["machines"], found["rejects"], "wall_s" in found) == ({}, {"open": 1}, False)


def test_the_times_of_parallel_tasks():
    info = DatasetInfo(dataset="d", split="s", modality="image", profile="p", label_names=(), settings={"sources": 30})
    efforts = [
        Effort(machine=name, began_s=began_s, wall_s=10.0, cpu_s=8.0, retries=1)
        for name, began_s in (("a", 1000.0), ("b", 1002.0), ("a", 1010.0))
    ]
    found = make_report(info, {}, efforts, (), {})
    assert (found["began"], found["ended"]) == ("1970-01-01T00:16:40+00:00", "1970-01-01T00:17:00+00:00")
    assert (found["wall_s"], found["busy_s"], found["cpu_s"], found["sources_per_s"]) == (20, 30, 24, 1.5)
    assert found["cpu_s_per_source"] == 0.8
    assert found["retries"] == 3
    assert found["machines"] == {"a": {"shards": 2, "cpu_s": 16.0}, "b": {"shards": 1, "cpu_s": 8.0}}
