"""What every job in an object store must show, whatever the store is: a test class per store inherits it."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from maskstream.preprocess import JobReport, make_shards
from maskstream.shards.errors import DatasetError, ResumeError, ShardError, UnfinishedError
from maskstream.shards.format.dataset import DATASET_JSON
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.records import JOB, RECORDS
from maskstream.shards.format.verify import verify
from maskstream.shards.stores.output import Location, open_output, within
from maskstream.shards.stores.remote_output import PROBE, RemoteOutput

from .folder_job import Told

N_IMAGES, SHARD = 11, 2
SPLIT = "train"


def pictures(root: Path) -> Path:
    """Pictures of two classes, one of which is cut off."""
    rng = np.random.default_rng(0)
    for number in range(N_IMAGES):
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (40, 50 + number, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:1000])
    return root


def run(raw: Path, out: Location, **settings: Any) -> JobReport:
    """Write the pictures as shards, in this process."""
    made = {"workers": 0, "samples_per_shard": SHARD, "max_rejects": 1, "pauses_s": ()}
    return make_shards("image-folder", raw, out, **{**made, **settings})


def contents(out: Location) -> dict[str, str]:
    """The sha256 of each file of the split but its records, which hold times."""
    output = open_output(within(out, SPLIT))
    names = [name for name in output.names() if not name.startswith(f"{RECORDS}/")]
    return {name: hashlib.sha256(output.whole(name, 1 << 30) or b"").hexdigest() for name in names}


class RemoteJobs:
    """Tests with `place`, an empty place in a store."""

    @pytest.fixture
    def raw(self, tmp_path: Path) -> Path:
        return pictures(tmp_path / "raw")

    @pytest.fixture
    def wanted(self, raw: Path, tmp_path: Path) -> dict[str, str]:
        run(raw, tmp_path / "local")
        return contents(tmp_path / "local")

    def test_the_bytes_are_those_of_a_local_folder(self, raw: Path, place: str, wanted: dict[str, str]) -> None:
        report = run(raw, place)
        split = report.splits[SPLIT]
        assert (split.folder, split.state) == (f"{place}/{SPLIT}", "written")
        assert (split.counts["samples"], split.counts["rejects"]) == (N_IMAGES - 1, 1)
        assert contents(place) == wanted
        assert verify(f"{place}/{SPLIT}", decode=True).ok
        assert len(Manifest.load(f"{place}/{SPLIT}")) == N_IMAGES - 1
        names = open_output(f"{place}/{SPLIT}").names()
        assert names == open_output(raw.parent / "local" / SPLIT).names()
        assert len([name for name in names if name.endswith(".record")]) == -(-N_IMAGES // SHARD)

    def test_worker_processes_write_too(self, raw: Path, place: str, wanted: dict[str, str]) -> None:
        run(raw, place, workers=2)
        assert contents(place) == wanted

    def test_what_is_finished_stays(self, raw: Path, place: str) -> None:
        run(raw, place)
        told = Told()
        assert run(raw, place, progress=told).splits[SPLIT].state == "already finished"
        assert told.n_sources == 0
        with pytest.raises(ResumeError, match=r"samples_per_shard: saved 2, here 3"):
            run(raw, place, samples_per_shard=3)

    def test_an_interrupted_run_continues(self, raw: Path, place: str, wanted: dict[str, str]) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(raw, place, progress=Told(5))
        output = open_output(f"{place}/{SPLIT}")
        assert output.size(DATASET_JSON) is None
        assert len([name for name in output.names(f"{RECORDS}/") if name.endswith(".record")]) == 2
        told = Told()
        assert run(raw, place, progress=told).splits[SPLIT].state == "continued"
        assert told.n_sources == N_IMAGES - 4
        assert contents(place) == wanted

    @pytest.mark.parametrize("suffix", [".tar", ".idx", ".sums"])
    def test_a_shard_that_lost_a_file_is_written_again(
        self, suffix: str, raw: Path, place: str, wanted: dict[str, str]
    ) -> None:
        run(raw, place)
        output = open_output(f"{place}/{SPLIT}")
        output.remove([f"image-folder-000001{suffix}", DATASET_JSON])
        told = Told()
        run(raw, place, progress=told)
        assert told.n_sources == SHARD
        assert contents(place) == wanted

    @pytest.mark.parametrize("name", [DATASET_JSON, "manifest-000000.parquet", "rejects.parquet"])
    def test_a_damaged_index_is_written_again(self, name: str, raw: Path, place: str, wanted: dict[str, str]) -> None:
        run(raw, place)
        output = open_output(f"{place}/{SPLIT}")
        data = bytearray(output.whole(name, 1 << 30) or b"")
        data[len(data) // 2] ^= 1
        output.publish(name, bytes(data))
        told = Told()
        assert run(raw, place, progress=told).splits[SPLIT].state == "continued"
        assert told.n_sources == 0
        assert contents(place) == wanted

    def test_overwriting_starts_over(self, raw: Path, place: str, wanted: dict[str, str]) -> None:
        run(raw, place, samples_per_shard=3)
        open_output(f"{place}/{SPLIT}").publish("notes.txt", b"mine")
        told = Told()
        run(raw, place, overwrite=True, progress=told)
        assert told.n_sources == N_IMAGES
        found = contents(place)
        assert found.pop("notes.txt")
        assert found == wanted

    def test_changed_sources_are_refused(self, raw: Path, place: str) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(raw, place, progress=Told(7))
        for path in raw.rglob("*.png"):
            path.write_bytes(path.read_bytes() + b"more")
        with pytest.raises(ResumeError, match=rf"{place}/train: 6 of 11 sources changed"):
            run(raw, place)

    def test_rejects_are_encoded_again_on_request(self, raw: Path, place: str) -> None:
        run(raw, place)
        [broken] = [path for path in raw.rglob("*.png") if path.stat().st_size == 1000]
        cv2.imwrite(str(broken), np.zeros((40, 40, 3), np.uint8))
        told = Told()
        report = run(raw, place, retry_rejects=True, progress=told)
        assert told.n_sources in (SHARD, N_IMAGES % SHARD)
        assert (report.splits[SPLIT].counts["samples"], report.splits[SPLIT].counts["rejects"]) == (N_IMAGES, 0)

    def test_tars_of_others_are_not_mixed_with_ours(self, raw: Path, place: str) -> None:
        open_output(f"{place}/{SPLIT}").publish("theirs-000000.tar", b"")
        for overwrite in (False, True):
            with pytest.raises(DatasetError, match=r"theirs-000000\.tar"):
                run(raw, place, overwrite=overwrite)

    def test_parts_and_a_finish(self, raw: Path, place: str, wanted: dict[str, str]) -> None:
        run(raw, place, part=(2, 3))
        with pytest.raises(UnfinishedError, match="shards are not written yet"):
            run(raw, place, finish=True)
        for number in (1, 2):
            run(raw, place, part=(number, 2))
        run(raw, place, finish=True)
        assert contents(place) == wanted

    def test_two_drivers_leave_one_split(self, raw: Path, place: str, wanted: dict[str, str]) -> None:
        """Both begin at the same time and agree in the end; each of them reports a finished split."""
        barrier, failed = threading.Barrier(2), []

        def drive() -> None:
            barrier.wait()
            try:
                run(raw, place)
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=drive) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert contents(place) == wanted
        assert run(raw, place).splits[SPLIT].state == "already finished"

    @pytest.mark.parametrize("phase", ["encode", f"verify {SPLIT}"])
    def test_a_driver_that_comes_later_takes_nothing_away(
        self, phase: str, raw: Path, place: str, wanted: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It does the whole job while the first one is at work, which then ends as if it had been alone."""
        removed: list[str] = []
        remove = RemoteOutput.remove

        def noted(output: RemoteOutput, names: Iterable[str]) -> None:
            names = list(names)
            removed.extend(name for name in names if name != PROBE)
            remove(output, names)

        class Overtaken(Told):
            later: JobReport | None = None

            def advance(self, units: int) -> None:
                super().advance(units)
                if self.phases[-1][0] == phase and self.later is None and (self.n_sources > SHARD):
                    self.later = run(raw, place)

        monkeypatch.setattr(RemoteOutput, "remove", noted)
        told = Overtaken()
        assert run(raw, place, progress=told).splits[SPLIT].state == "written"
        assert told.later is not None
        assert told.later.splits[SPLIT].state == "continued"
        assert removed == []
        assert contents(place) == wanted

    def test_a_dataset_that_differs_is_left_to_its_writer(self, raw: Path, place: str, tmp_path: Path) -> None:
        """Another driver finished in the meantime, and found other rejects."""
        run(raw, tmp_path / "other", max_rejects=1)
        other = json.loads((tmp_path / "other/train/dataset.json").read_bytes())

        class Racing(Told):
            def advance(self, units: int) -> None:
                super().advance(units)
                if self.n_sources == N_IMAGES - 1:
                    open_output(f"{place}/{SPLIT}").publish(DATASET_JSON, json.dumps(other).encode())

        with pytest.raises(ShardError, match=r"dataset\.json already exists and differs from this run's"):
            run(raw, place, progress=Racing())
        assert open_output(f"{place}/{SPLIT}").whole(DATASET_JSON, 1 << 20) == json.dumps(other).encode()

    def test_a_run_that_may_still_write_is_named(self, raw: Path, place: str, caplog: pytest.LogCaptureFixture) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(raw, place, progress=Told(5))
        output = open_output(f"{place}/{SPLIT}")
        job = json.loads(output.whole(f"{RECORDS}/{JOB}", 1 << 20) or b"")
        assert job["writer"].startswith("process ")
        output.publish(f"{RECORDS}/{JOB}", json.dumps(job | {"writer": "process 7 on elsewhere"}).encode())
        with caplog.at_level(logging.WARNING):
            run(raw, place)
        assert "was started by process 7 on elsewhere and is unfinished" in caplog.text
        assert "writer" not in json.loads(output.whole(f"{RECORDS}/{JOB}", 1 << 20) or b"")
