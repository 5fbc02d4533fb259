"""Raw folders to finished splits: the same bytes however they come about, interruptions, rejects, refusals."""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from maskstream.preprocess import DATASETS, PROFILES, index_tars, make_shards
from maskstream.preprocess.executors.local import LocalExecutor
from maskstream.preprocess.plan import default_samples_per_shard, sample_key
from maskstream.preprocess.progress import Progress
from maskstream.preprocess.shard_task import WrittenShard
from maskstream.shards.errors import BusyError, DatasetError, OutageError, ResumeError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.records import RECORDS, Records
from maskstream.shards.format.sample import KEY_PATTERN
from maskstream.shards.format.verify import verify
from maskstream.shards.stores.sole_writer import sole_writer

FAST = replace(PROFILES["train"], preset="ultrafast")


@pytest.fixture
def raw(make_video, tmp_path):
    """Ten videos in two classes for training, two for validation, and two that are none."""
    for number in range(10):
        make_video(f"raw/train/{'ab'[number % 2]}/clip {number}.mp4", 4 + number)
    for number in range(2):
        make_video(f"raw/val/a/clip {number}.mkv", 5)
    (tmp_path / "raw/train/a/text.mp4").write_text("not a video")
    (tmp_path / "raw/train/b/empty.mp4").touch()
    return tmp_path / "raw"


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and RECORDS not in path.parts  # they hold the times of the sources
    }


class Told(Progress):
    """Keeps what it is told; `stop_after` clips it interrupts."""

    def __init__(self, stop_after=None):
        self.n_sources, self.phases, self.words, self.stop_after = 0, [], [], stop_after

    def phase(self, name, total, done=0, unit="clips"):
        self.phases.append((name, total, done))

    def advance(self, units):
        if self.phases[-1][0] == "encode":
            self.n_sources += units
            if self.n_sources == self.stop_after:
                raise KeyboardInterrupt

    def say(self, text):
        self.words.append(text)


def run(raw, out, **settings):
    return make_shards(
        "folder", raw, out, **{"profile": FAST, "samples_per_shard": 3, "workers": 0, "max_rejects": 1, **settings}
    )


def test_a_split_is_verified_and_complete(raw, tmp_path):
    told = Told()
    report = run(raw, tmp_path / "out", progress=told)
    train = report.splits["train"]
    assert train.state == "written"
    assert (train.counts["samples"], train.counts["rejects"], train.counts["frames"]) == (10, 2, 85)
    assert train.counts["rejected"] == {"open": 2}
    assert report.n_sources == told.n_sources == 14
    assert told.phases == [("encode", 14, 0), *[(name, size, 0) for name, size, _ in told.phases[1:]]]

    manifest = Manifest.load(train.folder)
    assert verify(train.folder, decode=True).ok
    assert len(list((train.folder / RECORDS).iterdir())) == 4 + 3
    assert manifest.info["label_names"] == ["a", "b"]
    rejects = pq.read_table(train.folder / "rejects.parquet").to_pylist()
    assert [reject["source"] for reject in rejects] == ["train/a/text.mp4", "train/b/empty.mp4"]
    assert sorted(manifest.component("mp4").facts["n_frames"].tolist()) == list(range(4, 14))
    for number in range(10):
        key = manifest.key(number)
        with tarfile.open(manifest.shard_path(number)) as tar:
            described = json.loads(tar.extractfile(f"{key}.json").read())
        assert described["label"] == manifest.label[number] == "ab".index(described["source"].split("/")[1])
        assert described["n_frames"] == manifest.component("mp4").facts["n_frames"][number]
        assert sample_key(described["source"]) == key
    for path in tmp_path.rglob("*.json"):
        assert str(tmp_path) not in path.read_text()


def test_workers_change_no_byte(raw, tmp_path):
    run(raw, tmp_path / "one", workers=1)
    run(raw, tmp_path / "two", workers=2)
    run(raw, tmp_path / "here")
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(tmp_path / "here")
    assert len(contents(tmp_path / "one")) == 5 * 3 + 2 * 4


def test_interrupted_and_continued(raw, tmp_path):
    run(raw, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(raw, tmp_path / "out", progress=Told(stop_after=8))
    assert len(list((tmp_path / "out/train" / RECORDS).glob("*.record"))) == 2
    assert not (tmp_path / "out/train/dataset.json").exists()
    told = Told()
    report = run(raw, tmp_path / "out", progress=told)
    assert report.splits["train"].state == "continued"
    assert told.phases[0] == ("encode", 14, 6)
    assert told.n_sources == 8
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_killed_anywhere(raw, tmp_path):
    """SIGKILL to the command and its workers; what stays behind goes on to the same bytes."""
    run(raw, tmp_path / "whole", profile=PROFILES["train"])
    script = (
        "import sys\nfrom maskstream.preprocess import make_shards\n"
        "if __name__ == '__main__':\n"
        "    make_shards('folder', sys.argv[1], sys.argv[2], workers=1, samples_per_shard=3, max_rejects=1)\n"
    )
    (tmp_path / "main.py").write_text(script)
    command = [sys.executable, str(tmp_path / "main.py"), str(raw), str(tmp_path / "out")]
    process = subprocess.Popen(command, start_new_session=True)
    records = tmp_path / "out/train" / RECORDS
    while process.poll() is None and not list(records.glob("*.record")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (tmp_path / "out/train/.folder-000003.tar.00000000.tmp").write_bytes(b"half a shard")
    report = run(raw, tmp_path / "out", profile=PROFILES["train"])
    assert {split.state for split in report.splits.values()} <= {"continued", "written", "already finished"}
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


class Sabotaged:
    """Kills the process of LocalExecutor(1) after the first event."""

    killed = False

    def run(self, work, tasks):
        for event in LocalExecutor(1).run(work, tasks):
            if not self.killed:
                [child] = multiprocessing.active_children()
                os.kill(child.pid, signal.SIGKILL)
                self.killed = True
            yield event


def test_a_worker_that_is_killed_costs_nothing(raw, tmp_path):
    run(raw, tmp_path / "whole")
    told, executor = Told(), Sabotaged()
    run(raw, tmp_path / "out", workers=None, executor=executor, progress=told)
    assert executor.killed
    assert ["SIGKILL" in word for word in told.words] == [True]
    assert told.n_sources == 14
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


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
    with pytest.raises(DatasetError, match="holds an index of tars of other programs"):
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
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    told = Told()
    report = run(raw, tmp_path / "out", progress=told)
    assert (report.splits["train"].state, told.n_sources) == ("continued", 0)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_too_many_rejects_fail_until_they_are_accepted(raw, tmp_path):
    out = tmp_path / "out"
    said = r"2 of 12 sources \(16\.7%\) cannot be used, of which 0 are missing; at most 5\.0% .*open: is an empty file"
    with pytest.raises(DatasetError, match=said + r".*--retry-rejects.*--max-rejects 0\.17"):
        run(raw, out, max_rejects=0.05)
    assert not (out / "train/dataset.json").exists()
    told = Told()
    report = run(raw, out, max_rejects=0.17, progress=told)
    assert told.n_sources == 0
    assert report.splits["train"].counts["rejects"] == 2
    run(raw, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")
    with pytest.raises(DatasetError, match=said):
        run(raw, out, max_rejects=0.05)
    for share in (-0.1, 1.1):
        with pytest.raises(ValueError, match="max_rejects"):
            run(raw, out, max_rejects=share)


def test_missing_files_count_as_rejects(make_video, tmp_path):
    make_video("raw/x.mp4", 4)
    (tmp_path / "raw/videos.csv").write_text("path\nx.mp4\ny.mp4\nz.mp4\n")
    with pytest.raises(DatasetError, match=r"2 of 3 .*of which 2 are missing.*missing: there is no file \(2\)"):
        run(tmp_path / "raw", tmp_path / "out", max_rejects=0.6)


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
    with pytest.raises(ValueError, match="exclude each other"):
        run(raw, out, overwrite=True, retry_rejects=True)


def test_a_folder_that_another_run_writes_to_is_left_alone(raw, tmp_path):
    run(raw, tmp_path / "out")
    before = contents(tmp_path / "out")
    for out, overwrite in (("out", True), ("new", True), ("new", False)):
        with sole_writer(tmp_path / out / "train"), pytest.raises(BusyError, match="another run writes to"):
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


def test_nothing_usable(tmp_path):
    for name in ("a/0", "a/1", "b/2"):
        (tmp_path / f"raw/{name}.mp4").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"raw/{name}.mp4").touch()
    with pytest.raises(DatasetError, match=r"none of 3 sources can be used\. open: is an empty file \(0 bytes\) \(3\)"):
        run(tmp_path / "raw", tmp_path / "out")


def test_a_shard_of_rejects_is_not_written(raw, tmp_path):
    report = run(raw, tmp_path / "out", samples_per_shard=1)
    assert report.splits["train"].counts["shards"] == 10
    assert verify(tmp_path / "out/train").ok


def test_missing_files_are_rejects(make_video, tmp_path):
    make_video("raw/x.mp4", 4)
    (tmp_path / "raw/videos.csv").write_text("path,label\nx.mp4,cat\ny.mp4,cat\n")
    counts = run(tmp_path / "raw", tmp_path / "out").splits["train"].counts
    assert (counts["samples"], counts["rejected"]) == (1, {"missing": 1})


def test_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"'k40' is no dataset.*k400"):
        make_shards("k40", tmp_path, tmp_path)
    with pytest.raises(ValueError, match="at least"):
        make_shards("folder", tmp_path, tmp_path, workers=-1)
    with pytest.raises(ValueError, match="exclude each other"):
        make_shards("folder", tmp_path, tmp_path, workers=1, executor=LocalExecutor(1))


@pytest.mark.parametrize(("n", "size"), [(1, 8), (41, 8), (1000, 63), (240_000, 256)])
def test_default_shard_size(n, size):
    assert default_samples_per_shard(n) == size


def test_keys():
    ids = ["a/b c.mp4", "a/b_c.mp4", "ü" * 90, "", "-" * 100, "x" * 200, "x" * 201]
    keys = [sample_key(name) for name in ids]
    assert len(set(keys)) == len(ids)
    assert all(KEY_PATTERN.fullmatch(key) for key in keys)
    assert keys[0].startswith("a_b_c_mp4-")
