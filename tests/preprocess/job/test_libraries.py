"""A process whose libraries are not the job's writes nothing, and says what differs."""

import pickle
import re
import tarfile

import av
import pytest

from maskstream.preprocess import index_tars
from maskstream.preprocess.executors.base import Finished
from maskstream.preprocess.job import ledger
from maskstream.shards.errors import ResumeError

from ...attacks.shard_kills import contents, pictures
from .picture_job import run


@pytest.fixture
def raw(tmp_path):
    pictures(tmp_path / "raw", 0)
    return tmp_path / "raw"


@pytest.fixture
def foreign(monkeypatch):
    """Makes this process one of a machine with other wheels."""

    def become(name):
        if name == "libavcodec":
            monkeypatch.setattr(av, "library_versions", {**av.library_versions, "libavcodec": (61, 19, 100)})
        elif name == "x264":
            monkeypatch.setattr(ledger, "_x264", lambda: "core 148")
        elif name == "machine":
            monkeypatch.setattr("platform.machine", lambda: "riscv64")
        else:
            real = ledger._version
            monkeypatch.setattr(ledger, "_version", lambda package: "0.9" if package == name else real(package))

    return become


class OnAnotherMachine:
    """Runs the first task here, and the others where the libraries are others. What is sent there is pickled."""

    def __init__(self, become):
        self.become = become

    def run(self, work, tasks):
        work = pickle.loads(pickle.dumps(work))
        for task in tasks:
            yield Finished(task, work(task, lambda note: None))
            self.become()


def test_what_decides_the_bytes_is_named():
    found = ledger.libraries("video")
    assert set(found) == {*av.library_versions, "x264", "av", "machine", "numpy", "opencv-python-headless"}
    assert re.fullmatch(r"core \d+.*", found["x264"])
    assert found["libavcodec"].count(".") == 2
    assert {"torch", "soxr"} <= set(ledger.libraries("audio"))
    assert set(ledger.libraries("of my own")) > set(ledger.libraries("audio"))


@pytest.mark.parametrize("name", ["libavcodec", "x264", "machine", "opencv-python-headless", "av"])
def test_a_task_on_a_machine_with_another_library_writes_no_shard(raw, tmp_path, foreign, name):
    with pytest.raises(ResumeError, match=rf"000001\.tar would have different bytes .*{name}: saved .*, here"):
        run(raw, tmp_path / "out", workers=None, executor=OnAnotherMachine(lambda: foreign(name)))
    assert len(list((tmp_path / "out/train").glob("*.tar"))) == 1
    assert not list((tmp_path / "out/train").glob("*.tmp"))


@pytest.mark.parametrize("part", [(2, 2), None])
def test_a_run_with_another_library_does_not_go_on(raw, tmp_path, foreign, part):
    run(raw, tmp_path / "out", part=(1, 2))
    before = contents(tmp_path / "out")
    foreign("libavcodec")
    with pytest.raises(ResumeError, match=r"libraries\.libavcodec: saved .*, here 61\.19\.100"):
        run(raw, tmp_path / "out", part=part)
    assert contents(tmp_path / "out") == before


def test_another_library_of_another_modality_does_not_matter(raw, tmp_path, foreign):
    run(raw, tmp_path / "out", part=(1, 2))
    foreign("torch")
    assert ledger.libraries("audio")["torch"] == "0.9"
    run(raw, tmp_path / "out")


def test_an_index_is_made_by_one_kind_of_machine(tmp_path, make_video, foreign):
    (tmp_path / "tars").mkdir()
    for number in range(2):
        path = make_video(f"{number}.mp4", 8)
        with tarfile.open(tmp_path / f"tars/{number}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            tar.add(path, f"{number}.mp4")
    with pytest.raises(ResumeError, match="different bytes"):
        index_tars([tmp_path / "tars"], executor=OnAnotherMachine(lambda: foreign("libavcodec")))
    assert not list((tmp_path / "tars").glob("1.packets"))
