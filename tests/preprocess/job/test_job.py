"""Raw folders to finished splits: the same bytes however they come about, interruptions, rejects."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import pyarrow.parquet as pq
import pytest

from maskstream.preprocess import PROFILES, make_shards
from maskstream.preprocess.executors.local import LocalExecutor
from maskstream.preprocess.job.plan import default_samples_per_shard, sample_key
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.records import RECORDS
from maskstream.shards.format.sample import KEY_PATTERN
from maskstream.shards.format.verify import verify

from ...attacks.processes import workers_of
from .folder_job import Told, contents, run


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


@pytest.mark.slow
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
    (tmp_path / "out/train/versions").mkdir(exist_ok=True)
    (tmp_path / "out/train/versions/.1.json.00000000.tmp").write_bytes(b"half a description")
    report = run(raw, tmp_path / "out", profile=PROFILES["train"])
    assert {split.state for split in report.splits.values()} <= {"continued", "written", "already finished"}
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


class Sabotaged:
    """Kills the process of LocalExecutor(1) after the first event."""

    killed = False

    def run(self, work, tasks):
        others = {*workers_of(os.getpid())}  # of loaders in other tests
        for event in LocalExecutor(1).run(work, tasks):
            if not self.killed:
                [child] = {*workers_of(os.getpid())} - others
                os.kill(child, signal.SIGKILL)
                self.killed = True
            yield event


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing(raw, tmp_path):
    run(raw, tmp_path / "whole")
    told, executor = Told(), Sabotaged()
    run(raw, tmp_path / "out", workers=None, executor=executor, progress=told)
    assert executor.killed
    assert ["SIGKILL" in word for word in told.words] == [True]
    assert told.n_sources == 14
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_too_many_rejects_fail_until_they_are_accepted(raw, tmp_path):
    out = tmp_path / "out"
    said = (
        r"2 of 12 sources \(16\.7%\) cannot be used, and 0 of them are missing, but at most 5\.0% .*"
        r"open: is an empty file"
    )
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
    with pytest.raises(DatasetError, match=r"2 of 3 .*2 of them are missing.*missing: there is no file \(2\)"):
        run(tmp_path / "raw", tmp_path / "out", max_rejects=0.6)
    counts = run(tmp_path / "raw", tmp_path / "out", max_rejects=0.7).splits["train"].counts
    assert (counts["samples"], counts["rejected"]) == (1, {"missing": 2})


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


def test_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"'k40' is not a known dataset.*k400"):
        make_shards("k40", tmp_path, tmp_path)
    with pytest.raises(ValueError, match="at least"):
        make_shards("folder", tmp_path, tmp_path, workers=-1)
    with pytest.raises(ValueError, match="cannot be combined"):
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
