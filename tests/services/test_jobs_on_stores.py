"""Jobs that write to real servers of object stores, and kills of their drivers and workers."""

from __future__ import annotations

import os
import random
import signal
import time
import uuid
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path

import pytest

from maskstream.preprocess import LocalExecutor
from maskstream.preprocess.executors.base import Event, RecordT, TaskT, Work
from maskstream.shards.format.dataset import DATASET_JSON
from maskstream.shards.format.verify import verify
from maskstream.shards.stores.output import open_output
from tests.attacks.kills import FORKS, Job, kills
from tests.preprocess.job.remote_jobs import SPLIT, RemoteJobs, contents, pictures, run
from tests.services.seaweedfs import S3Server

from ..attacks.processes import workers_of

pytestmark = pytest.mark.services
KILLS = 12
PLACE = "place"


class TestOnSeaweedFS(RemoteJobs):
    """S3."""

    @pytest.fixture
    def place(self, s3: str) -> str:
        return s3


class TestOnAzurite(RemoteJobs):
    """Azure's blob storage."""

    @pytest.fixture
    def place(self, azure: str) -> str:
        return azure


def place_in(s3: str, out: Path) -> str:
    """The place that stands for a local folder, as long as the folder is there."""
    note = out / PLACE
    if not note.exists():
        out.mkdir(parents=True, exist_ok=True)
        written = out / str(os.getpid())
        written.write_text(uuid.uuid4().hex)
        written.rename(note)
    return f"{s3}/{note.read_text()}"


def work(env: dict[str, str], s3: str, raw: Path, workers: int, out: Path) -> None:
    """A job in a process of its own."""
    os.environ.update(env)
    run(raw, place_in(s3, out), workers=workers)


def outcome(s3: str, out: Path) -> dict[str, str]:
    return contents(place_in(s3, out))


def is_finished(s3: str, out: Path) -> bool:
    return open_output(f"{place_in(s3, out)}/{SPLIT}").size(DATASET_JSON) is not None


@pytest.mark.parametrize("workers", [0, 2])
def test_kills_of_the_whole_job_at_any_moment(workers: int, s3: str, s3_server: S3Server, tmp_path: Path) -> None:
    raw = pictures(tmp_path / "raw")
    job = Job(
        run=partial(work, s3_server.env, s3, raw, workers),
        outcome=partial(outcome, s3),
        finished=partial(is_finished, s3),
    )
    assert kills(job, KILLS, workers, tmp_path / "kills") == {"exact": KILLS}


class Sabotaged:
    """Kills a worker process of LocalExecutor(2) at random moments, some times."""

    def __init__(self, seed: int, most: int) -> None:
        self.rng, self.left, self.killed = random.Random(seed), most, 0

    def run(self, work: Work[TaskT, RecordT], tasks: Sequence[TaskT]) -> Generator[Event[TaskT, RecordT], None, None]:
        others = {*workers_of(os.getpid())}  # of loaders in other tests
        for event in LocalExecutor(2).run(work, tasks):
            children = [worker for worker in workers_of(os.getpid()) if worker not in others]
            if self.left and children and self.rng.random() < 0.3:
                time.sleep(self.rng.random() * 0.02)
                os.kill(self.rng.choice(children), signal.SIGKILL)
                self.left -= 1
                self.killed += 1
            yield event


def test_kills_of_workers(s3: str, tmp_path: Path) -> None:
    raw = pictures(tmp_path / "raw")
    run(raw, tmp_path / "local")
    killed = 0
    for seed in range(3):
        executor = Sabotaged(seed, 2)
        run(raw, f"{s3}/{seed}", workers=None, executor=executor)
        killed += executor.killed
        assert contents(f"{s3}/{seed}") == contents(tmp_path / "local")
    assert killed


def test_racing_drivers_of_which_one_is_killed_leave_one_split(s3: str, s3_server: S3Server, tmp_path: Path) -> None:
    raw = pictures(tmp_path / "raw")
    run(raw, tmp_path / "local")
    rng = random.Random(0)
    for number in range(4):
        out = tmp_path / f"out{number}"
        place = place_in(s3, out)
        drivers = [FORKS.Process(target=work, args=(s3_server.env, s3, raw, 0, out)) for _ in range(3)]
        for driver in drivers:
            driver.start()
            time.sleep(rng.random() * 0.3)
        drivers[rng.randrange(3)].kill()
        for driver in drivers:
            driver.join()
        assert sorted(driver.exitcode or 0 for driver in drivers)[1:] == [0, 0]
        assert contents(place) == contents(tmp_path / "local")
        assert verify(f"{place}/{SPLIT}").ok
        assert open_output(f"{place}/{SPLIT}").names() == open_output(tmp_path / "local" / SPLIT).names()
