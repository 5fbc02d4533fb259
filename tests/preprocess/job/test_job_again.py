"""A job that meets a folder with shards: finished, changed, damaged, of others, overwritten or tried again."""

import json
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from maskstream.preprocess import DATASETS, index_tars, make_shards
from maskstream.preprocess.job.task import WrittenShard
from maskstream.shards.errors import BusyError, DatasetError, OutageError, ResumeError
from maskstream.shards.format.records import RECORDS, Records
from maskstream.shards.stores.local_files import sole_writer

from ...damaged_files import flip
from .folder_job import Told, contents, run


def test_finished_is_finished(raw, tmp_path):
    run(raw, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    report = run(raw, tmp_path / "out")
    assert {split.state for split in report.splits.values()} == {"already finished"}
    assert report.n_sources == 0
    assert report.splits["train"].counts["rejected"] == {"open": 2}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_other_settings_are_refused_unless_overwrite(raw, tmp_path):
    out = tmp_path / "out"
    run(raw, out)
    (out / "train/notes.txt").write_text("mine")
    with pytest.raises(ResumeError, match=r"samples_per_shard: saved 3, here 5.*overwrite"):
        run(raw, out, samples_per_shard=5)
    shutil.rmtree(raw / "train/b")
    with pytest.raises(ResumeError, match="sources: saved 12, here 6"):
        run(raw, out, as_is=True)  # one class is left
    report = run(raw, out, samples_per_shard=5, overwrite=True, as_is=True)
    assert report.splits["train"].counts["shards"] == 1
    assert [path.name for path in sorted((out / "train").glob("*.tar"))] == ["folder-000000.tar"]
    assert (out / "train/notes.txt").read_text() == "mine"
    with pytest.raises(KeyboardInterrupt):
        run(raw, tmp_path / "half", as_is=True, progress=Told(stop_after=4))
    with pytest.raises(ResumeError, match="samples_per_shard"):
        run(raw, tmp_path / "half", samples_per_shard=2, as_is=True)
    run(raw, tmp_path / "half", samples_per_shard=2, overwrite=True, as_is=True)
    run(raw, tmp_path / "whole", samples_per_shard=2, as_is=True)
    assert contents(tmp_path / "half") == contents(tmp_path / "whole")


def test_overwrite_overwrites_and_leaves_nothing(raw, tmp_path):
    out = tmp_path / "out"
    run(raw, out)
    (out / "train/.folder-000000.tar.0a0b0c0d.tmp").touch()
    told = Told()
    report = run(raw, out, overwrite=True, progress=told)
    assert (told.n_sources, report.n_sources) == (14, 14)
    assert {split.state for split in report.splits.values()} == {"written"}
    run(raw, tmp_path / "whole", samples_per_shard=12)
    run(raw, out, samples_per_shard=12, overwrite=True)
    assert contents(out) == contents(tmp_path / "whole")
    records = [
        sorted(path.name for path in (folder / "train" / RECORDS).iterdir()) for folder in (out, tmp_path / "whole")
    ]
    assert records[0] == records[1] == ["about.json", "folder-000000.tar.record", "job.json", "report.json"]


def test_overwrite_deletes_no_index_of_other_tars(raw, tmp_path):
    run(raw, tmp_path / "theirs")
    train = tmp_path / "out/train"
    train.mkdir(parents=True)
    for path in (tmp_path / "theirs/train").glob("*.tar"):
        shutil.copy(path, train)
    index_tars([train], workers=0)
    before = contents(train)
    with pytest.raises(DatasetError, match="contains an index of tars from other programs"):
        run(raw, tmp_path / "out", overwrite=True)
    assert contents(train) == before


def test_a_changed_source_is_refused_by_name(raw, tmp_path, make_video):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(raw, out, progress=Told(stop_after=11))
    for number in range(10):
        os.utime(raw / f"train/{'ab'[number % 2]}/clip {number}.mp4", (1e9, 1e9))
    run(raw, out)  # other times, same bytes
    assert run(raw, out).splits["train"].state == "already finished"
    before = contents(out)
    make_video("raw/train/a/clip 0.mp4", 9)
    clip = raw / "train/b/clip 1.mp4"
    data = clip.read_bytes()
    clip.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # of the same size
    for _ in range(2):
        with pytest.raises(
            ResumeError, match=r"2 of 12 sources changed .*'train/\w/clip \d.mp4', 'train/\w/clip \d.mp4'; choose"
        ):
            run(raw, out)
    with pytest.raises(ResumeError, match="2 of 12 sources changed"):
        run(raw, out, retry_rejects=True)
    assert contents(out) == before
    run(raw, out, overwrite=True)
    run(raw, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole") != before


def test_a_source_that_changed_while_a_run_was_stopped_is_refused(raw, tmp_path, make_video):
    with pytest.raises(KeyboardInterrupt):
        run(raw, tmp_path / "out", progress=Told(stop_after=8))
    recorded = json.loads(
        next((tmp_path / "out/train" / RECORDS).glob("*.record")).read_bytes().split(b" ", 1)[1].split(b"\n")[0]
    )
    assert len(recorded["sources"]) == 3
    for number in range(10):
        make_video(f"raw/train/{'ab'[number % 2]}/clip {number}.mp4", 20 + number)
    with pytest.raises(ResumeError, match=r"of 12 sources changed after they were encoded"):
        run(raw, tmp_path / "out")


def test_all_files_of_a_source_count(raw, tmp_path):
    """A source may have parts, such as the sounds of several microphones."""

    def with_parts(*names):
        def dataset(root):
            found = DATASETS["folder"](root)
            sources = [replace(one, parts=tuple(root / name for name in names)) for one in found.splits["val"]]
            return replace(found, splits={"val": sources})

        return dataset

    for name in ("one", "two"):
        (raw / name).write_text(name)
    made = {"workers": 0, "pauses_s": ()}
    make_shards(with_parts("one"), raw, tmp_path / "out", **made)
    assert make_shards(with_parts("one"), raw, tmp_path / "out", **made).splits["val"].state == "already finished"
    for names in ((), ("one", "two"), ("two",)):
        with pytest.raises(ResumeError, match="2 of 2 sources changed"):
            make_shards(with_parts(*names), raw, tmp_path / "out", **made)
    (raw / "one").unlink()
    with pytest.raises(OutageError, match="one: No such file"):
        make_shards(with_parts("one"), raw, tmp_path / "out", **made)


def test_a_split_without_records_is_refused(raw, tmp_path):
    run(raw, tmp_path / "out")
    shutil.rmtree(tmp_path / "out/train" / RECORDS)
    with pytest.raises(ResumeError, match=r"without \.records.*overwrite"):
        run(raw, tmp_path / "out")
    run(raw, tmp_path / "out", overwrite=True)


@pytest.mark.parametrize("name", ["dataset.json", "manifest-000000.parquet", "rejects.parquet"])
def test_a_damaged_index_is_written_again_without_encoding(name, raw, tmp_path):
    run(raw, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "out")
    path = tmp_path / "out/train" / name
    flip(path)
    told = Told()
    report = run(raw, tmp_path / "out", progress=told)
    assert (report.splits["train"].state, told.n_sources) == ("continued", 0)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_retry_encodes_the_shards_with_rejects_again(raw, tmp_path, make_video):
    """A damaged file is fetched again; the shards without rejects keep their bytes and are not even written."""
    out = tmp_path / "out"
    run(raw, out)
    records = Records(out / "train", WrittenShard)
    names = [path.name.removesuffix(".record") for path in (out / "train" / RECORDS).glob("*.record")]
    rejected = {name for name in names if (records.first(SimpleNamespace(name=name)) or {})["rejects"]}
    before = {path: path.stat() for path in (out / "train").glob("*.tar")}
    make_video("raw/train/a/text.mp4", 7)
    with pytest.raises(
        ResumeError, match=r"1 of 12 .*'train/a/text\.mp4'; all of them were rejects: .*--retry-rejects"
    ):
        run(raw, out)
    told = Told()
    report = run(raw, out, retry_rejects=True, progress=told)
    assert report.splits["train"].state == "continued"
    assert report.splits["val"].state == "already finished"
    assert report.splits["train"].counts["rejected"] == {"open": 1}
    again = {path.name for path, was in before.items() if path.stat().st_ino != was.st_ino}
    assert again == rejected
    assert told.n_sources == 3 * len(rejected)
    run(raw, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")
    assert run(raw, out).splits["train"].state == "already finished"
    with pytest.raises(ValueError, match="cannot be combined"):
        run(raw, out, overwrite=True, retry_rejects=True)


def test_a_folder_that_another_run_writes_to_is_left_alone(raw, tmp_path):
    run(raw, tmp_path / "out")
    before = contents(tmp_path / "out")
    for out, overwrite in (("out", True), ("new", True), ("new", False)):
        with sole_writer(tmp_path / out / "train"), pytest.raises(BusyError, match="another run is writing to"):
            run(raw, tmp_path / out, samples_per_shard=5, overwrite=overwrite)
    assert contents(tmp_path / "out") == before


def test_foreign_tars_are_not_mixed_with_ours(raw, tmp_path):
    (tmp_path / "out/train").mkdir(parents=True)
    theirs = tmp_path / "out/train/theirs-000000.tar"
    theirs.touch()
    for overwrite in (False, True):
        with pytest.raises(DatasetError, match=r"theirs-000000\.tar"):
            run(raw, tmp_path / "out", overwrite=overwrite)
    assert theirs.exists()
