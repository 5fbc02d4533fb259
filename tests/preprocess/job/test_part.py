"""Parts of a job: any numbers of them write the same bytes, also at the same time, and none is in another's way."""

import json
import shutil
import threading

import pytest

from maskstream.preprocess.job.plan import JobPart
from maskstream.shards.errors import BusyError, ResumeError, UnfinishedError
from maskstream.shards.format.records import RECORDS
from maskstream.shards.stores.local_files import LOCK, joint_writer

from ...attacks.shard_kills import contents, pictures
from .folder_job import Told
from .picture_job import run

N_SHARDS = 6


@pytest.fixture
def raw(tmp_path):
    pictures(tmp_path / "raw", 0)
    return tmp_path / "raw"


@pytest.fixture
def whole(raw, tmp_path):
    run(raw, tmp_path / "whole")
    return contents(tmp_path / "whole")


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_all_parts_are_all_tasks(count):
    tasks = list(range(7))
    parts = [JobPart(number, count).of(tasks) for number in range(1, count + 1)]
    assert sorted(task for part in parts for task in part) == tasks
    assert parts[0][0] == 0


@pytest.mark.parametrize("text", ["", "3", "0/3", "4/3", "1/0", "-1/3", "1/3/5", "a/b", "1.0/3", "²/3"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(ValueError, match="expected 1/N to N/N"):
        JobPart.parse(text)
    assert str(JobPart.parse("2/3")) == "2/3"


def test_parts_of_other_numbers_write_the_bytes_of_one_run(raw, whole, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UnfinishedError, match=rf"{N_SHARDS} of {N_SHARDS} shards .*train/.*-000000\.tar, .*--finish"):
        run(raw, out, finish=True)
    report = run(raw, out, part=(2, 3))
    assert (report.splits["train"].state, report.splits["train"].counts) == (
        "part 2/3 written",
        {"shards": 2, "shards_written": 2},
    )
    assert not (out / "train/dataset.json").exists()
    with pytest.raises(KeyboardInterrupt):
        run(raw, out, part=(1, 2), progress=Told(stop_after=4))
    with pytest.raises(UnfinishedError, match=r"3 of 6 shards are not written yet: .*000002.*000003.*000005"):
        run(raw, out, finish=True)
    assert run(raw, out, part=(1, 1)).n_sources == 9
    report = run(raw, out, finish=True)
    assert (report.splits["train"].state, report.n_sources) == ("continued", 0)
    assert contents(out) == whole
    assert run(raw, out, part=(1, 7)).splits["train"].state == "already finished"
    assert run(raw, out, finish=True).splits["train"].state == "already finished"
    assert run(raw, out).splits["train"].state == "already finished"
    assert contents(out) == whole


def test_a_whole_run_goes_on_where_parts_stopped(raw, whole, tmp_path):
    run(raw, tmp_path / "out", part=(5, 5))
    assert run(raw, tmp_path / "out").n_sources == 15
    assert contents(tmp_path / "out") == whole


def test_parts_run_at_the_same_time(raw, whole, tmp_path):
    """Also twice the same one, as where a machine was taken for dead."""
    out, errors = tmp_path / "out", []

    def part(number):
        try:
            run(raw, out, part=(number, 3))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=part, args=(number,)) for number in (1, 2, 3, 3, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    run(raw, out, finish=True)
    assert contents(out) == whole
    assert not list(out.rglob("*.tmp"))
    assert not list(out.rglob(LOCK))


def test_a_part_leaves_the_files_of_others_and_the_finish_removes_what_is_left(raw, whole, tmp_path):
    train = tmp_path / "out/train"
    run(raw, tmp_path / "out", part=(1, 2))
    theirs = [train / ".image-folder-000001.tar.0a1b2c3d.tmp", train / RECORDS / ".x.record.0a1b2c3d.tmp"]
    for path in theirs:
        path.touch()
    before = {path.name: path.stat().st_mtime_ns for path in train.glob("*.tar")}
    run(raw, tmp_path / "out", part=(2, 2))
    run(raw, tmp_path / "out", part=(1, 2))
    assert all(path.exists() for path in theirs)
    assert {name: (train / name).stat().st_mtime_ns for name in before} == before
    run(raw, tmp_path / "out", finish=True)
    assert not any(path.exists() for path in theirs)
    assert contents(tmp_path / "out") == whole


def test_a_part_that_has_nothing_to_do_leaves_a_finished_split(raw, tmp_path):
    """One that was late, and began while another finished the split."""
    run(raw, tmp_path / "out")
    train = tmp_path / "out/train"
    job = json.loads((train / RECORDS / "job.json").read_bytes())
    (train / RECORDS / "job.json").write_text(json.dumps({**job, "verified": False}))
    run(raw, tmp_path / "out", part=(1, 3))
    assert (train / "dataset.json").exists()
    lost = next(train.glob("*-000003.tar"))
    lost.unlink()
    (train / RECORDS / "job.json").write_text(json.dumps(job))
    run(raw, tmp_path / "out", finish=True)
    assert not lost.exists()  # nobody looked
    (train / RECORDS / "job.json").write_text(json.dumps({**job, "verified": False}))
    run(raw, tmp_path / "out", part=(1, 3))
    assert lost.exists()
    assert not (train / "dataset.json").exists()


def test_a_sole_run_and_parts_exclude_each_other(raw, tmp_path):
    with joint_writer(tmp_path / "out/train"):
        for settings in ({}, {"finish": True}, {"overwrite": True}):
            with pytest.raises(BusyError, match="another run is writing"):
                run(raw, tmp_path / "out", **settings)
        run(raw, tmp_path / "out", part=(1, 1))
    run(raw, tmp_path / "out", finish=True)


def test_parts_with_other_settings_or_a_lost_job_are_refused(raw, tmp_path):
    out = tmp_path / "out"
    run(raw, out, part=(1, 2))
    for settings in ({"part": (2, 2)}, {"finish": True}):
        with pytest.raises((ResumeError, UnfinishedError)):
            run(raw, out, samples_per_shard=4, **settings)
    with pytest.raises(ResumeError, match="samples_per_shard: saved 3, here 4"):
        run(raw, out, samples_per_shard=4, part=(2, 2))
    (out / "train" / RECORDS / "job.json").unlink()
    with pytest.raises(ResumeError, match=r"has records, but no job\.json"):
        run(raw, out, part=(2, 2))
    shutil.rmtree(out / "train" / RECORDS)
    run(raw, out, part=(2, 2))


def test_rejects_are_encoded_again_in_parts(raw, tmp_path):
    run(raw, tmp_path / "out")
    assert run(raw, tmp_path / "out", part=(1, 1), retry_rejects=True).n_sources == 3
    assert not (tmp_path / "out/train/dataset.json").exists()
    assert run(raw, tmp_path / "out", finish=True).splits["train"].counts["rejects"] == 1


def test_wrong_arguments(raw, tmp_path):
    for settings in ({"overwrite": True}, {"retry_rejects": True}, {"part": (1, 1)}):
        with pytest.raises(ValueError, match="finish writes no shards"):
            run(raw, tmp_path / "out", finish=True, **settings)
    with pytest.raises(ValueError, match="cannot overwrite"):
        run(raw, tmp_path / "out", part=(1, 2), overwrite=True)
    with pytest.raises(ValueError, match="expected"):
        run(raw, tmp_path / "out", part=(0, 2))
