"""Verification in tasks: the report of one process, for any number of workers, whatever is damaged."""

import ctypes
import shutil

import pytest

from maskstream.preprocess import make_shards
from maskstream.preprocess.executors.base import Attempt
from maskstream.preprocess.job import verification
from maskstream.preprocess.job.ledger import Crashes
from maskstream.preprocess.job.verification import CheckTask, check_shard, verify_split
from maskstream.shards.format.verify import verify
from maskstream.shards.progress import Progress

from ...attacks.shard_kills import pictures
from ...damaged_files import flip


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    pictures(folder / "raw", 0)
    make_shards("image-folder", folder / "raw", folder / "out", workers=0, max_rejects=0.2, samples_per_shard=3)
    return folder / "out/train"


def damaged(split, folder):
    """A copy with a flipped byte in one tar, another tar cut off, an idx gone and a foreign tar."""
    shutil.copytree(split, folder)
    tars = sorted(folder.glob("*.tar"))
    flip(tars[1], 2000)
    tars[3].write_bytes(tars[3].read_bytes()[:-700])
    tars[4].with_suffix(".idx").unlink()
    (folder / "x.tar").touch()
    return folder


class Told(Progress):
    def __init__(self):
        self.phases, self.units = [], 0

    def phase(self, name, total, done=0, unit="sources"):
        self.phases.append((name, total, done, unit))

    def advance(self, units):
        self.units += units


@pytest.mark.parametrize(("is_damaged", "decode", "workers"), [(False, True, 2), (True, False, 1), (True, True, 2)])
def test_any_number_of_workers_finds_the_same(split, tmp_path, is_damaged, decode, workers):
    folder = damaged(split, tmp_path / "damaged") if is_damaged else split
    expected = verify(folder, decode=decode)
    assert expected.ok != is_damaged
    for number in (0, workers):
        told = Told()
        assert verify_split(folder, decode=decode, workers=number, progress=told) == expected
        [(name, total, done, unit)] = told.phases
        assert (name, done, unit, told.units) == ("verify train", 0, "kB", total)


def test_a_small_split_starts_no_process(split, monkeypatch):
    def never(*args):
        raise AssertionError

    monkeypatch.setattr("maskstream.preprocess.executors.local.Worker", never)
    assert verify_split(split).ok
    monkeypatch.setattr(verification, "SMALL_BYTES", 0)
    with pytest.raises(AssertionError):
        verify_split(split)


def test_what_is_no_split_is_a_problem(tmp_path):
    assert verify_split(tmp_path, workers=2) == verify(tmp_path)
    assert not verify(tmp_path).ok


def test_a_process_that_verified_a_split_reads_what_is_there_now(split, tmp_path):
    folder = tmp_path / "split"
    shutil.copytree(split, folder)
    assert verify_split(folder, workers=0).ok
    tar = next(folder.glob("*.tar"))
    data = bytearray(tar.read_bytes())
    data[2000] ^= 1
    tar.unlink()
    tar.write_bytes(data)
    assert not verify_split(folder, workers=0).ok


def test_a_shard_that_ends_two_processes_is_a_problem():
    task = CheckTask(location="nowhere", run="", number=0, name="x.tar", size_bytes=1, decode=True)
    for _ in range(2):
        task = task.crashed("x.tar", "killed its process by SIGSEGV")
    assert check_shard(task, print) == ["x.tar: cannot be checked (killed its process by SIGSEGV, twice)"]
    assert task.crashes == Crashes((("x.tar", "killed its process by SIGSEGV"),) * 2)


def crash(task, report):
    """Check a shard, but end the process at the third one."""
    if task.number == 2 and len(task.crashes.reasons) < 2:
        report(Attempt(task.name, 60))
        ctypes.string_at(0)
    return check_shard(task, report)


@pytest.mark.slow
def test_a_crash_of_a_check_costs_one_problem(split, monkeypatch):
    monkeypatch.setattr(verification, "check_shard", crash)
    report = verify_split(split, workers=2)
    [problem] = report.problems
    assert "000002.tar: cannot be checked (killed its process by SIGSEGV, twice)" in problem
