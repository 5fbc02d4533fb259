"""Jobs in Ray clusters: the bytes of a local run, blame where it belongs, and nodes that die."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from maskstream.preprocess import LocalExecutor
from maskstream.shards.format.verify import verify

pytest.importorskip("ray", reason="Ray is not installed; `make test-services` installs it")

from ..attacks.shard_kills import contents
from .poison_pictures import write_pictures
from .ray_cluster import ENV, RayCluster, ray_cluster
from .ray_driver import cut, made

pytestmark = pytest.mark.services

REPOSITORY = Path(__file__).parents[2]
SILENCE_S = 20
"""How long no source may be finished after a node died."""


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster(1, cpus=2) as one:
        yield one


def started(cluster: RayCluster | None, *words: str | Path, **more: object) -> subprocess.Popen[str]:
    """A script on the head of a cluster."""
    command = [sys.executable, "-m", *map(str, words)]
    return subprocess.Popen(
        cluster.head.inside(*command) if cluster else command,
        cwd=REPOSITORY,
        env={**os.environ, **ENV, "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"},
        stdout=subprocess.PIPE,
        text=True,
        **more,
    )


def said(process: subprocess.Popen[str], seconds: float = 300) -> list[object]:
    """The lines of JSON that a script prints until it ends."""
    lines = process.communicate(timeout=seconds)[0].splitlines()
    assert process.returncode == 0
    return [json.loads(line) for line in lines if line[0] in "[{"]  # Ray has a word too


def test_events_blame_and_errors_are_those_of_a_local_run(cluster: RayCluster):
    runs = [",segfault,slow,", "fail", "odd", "die", "kill the parent"]
    driver = started(cluster, "tests.services.ray_driver", "events", cluster.address, *runs)
    events, *failed = said(driver)
    assert sorted(event[1] for event in events if event[0] == "Finished") == [0, 1, 2, 3]
    assert [event for event in events if event[0] == "Crashed"] == [["Crashed", 1, "killed its process by SIGSEGV"]] * 2
    assert sorted(event[1] for event in events if event[0] == "Progressed") == [2]
    errors = [run[-1] for run in failed]
    assert [error[0] for error in errors] == ["OSError", "RuntimeError", "WorkerDiedError", "WorkerDiedError"]
    texts = ("No space left on device", "OddError: 1 and 2", "ended with code 7", "Ray lost it 3 times")
    assert [text in error[1] for text, error in zip(texts, errors, strict=True)] == [True] * 4
    assert "local_work.py" in errors[0][2][0]
    assert "on the node" in errors[0][2][-1]


def test_sounds_are_cut_at_the_same_pauses(cluster: RayCluster, tmp_path: Path):
    rng = np.random.default_rng(0)
    (tmp_path / "raw").mkdir()
    for number in range(3):
        spans = [rng.normal(0, level, round(s * 8000)) for s in rng.uniform(1, 3, 3) for level in (0.1, 0.0005)]
        sf.write(tmp_path / f"raw/{number}.wav", np.concatenate(spans), 8000)
    cut(LocalExecutor(workers=1), tmp_path / "raw", tmp_path / "local")
    said(started(cluster, "tests.services.ray_driver", "pauses", cluster.address, tmp_path / "raw", tmp_path / "ray"))
    assert len(contents(tmp_path / "local")) > 5
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


def test_poison_costs_one_reject_each_and_the_rest_is_as_always(cluster: RayCluster, tmp_path: Path):
    names = [*(f"good-{i}" for i in range(13)), "segfault", "hang", "grow"]
    write_pictures(tmp_path / "raw", names)
    said(
        started(
            cluster, "tests.services.ray_driver", "shards", cluster.address, "1", tmp_path / "raw", tmp_path / "ray"
        )
    )
    made(LocalExecutor(2), tmp_path / "raw", tmp_path / "local")
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    assert verify(tmp_path / "ray/train").ok
    rejects = {
        row["source"][2:]: row["reason"] for row in pq.read_table(tmp_path / "ray/train/rejects.parquet").to_pylist()
    }
    assert rejects == {
        "segfault.png": "killed its process by SIGSEGV, twice",
        "hang.png": "took longer than 6 s, twice",
        "grow.png": "took more than 0.8 GB of memory, twice",
    }


def test_a_node_that_dies_in_mid_job_is_made_good(tmp_path: Path, capsys):
    write_pictures(tmp_path / "raw", [f"slow-{i:02d}" for i in range(48)])
    with ray_cluster(2, cpus=1) as cluster:
        words = ("tests.services.ray_driver", "shards", cluster.address, "2", tmp_path / "raw", tmp_path / "ray")
        driver = started(cluster, *words)
        lines = [json.loads(driver.stdout.readline()) for _ in range(3)]
        killed_s = time.monotonic()
        cluster.others[0].kill()
        lines += said(driver)
    times = [killed_s, *(line["at"] for line in lines if line["at"] > killed_s)]
    silence_s = max(later - earlier for earlier, later in pairwise(times))
    with capsys.disabled():
        print(f"\na node of two was killed: longest silence {silence_s:.1f} s of {times[-1] - killed_s:.1f} s")
    made(LocalExecutor(2), tmp_path / "raw", tmp_path / "local")
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    assert silence_s <= SILENCE_S


def test_ctrl_c_ends_a_cluster_of_this_machine(tmp_path: Path):
    write_pictures(tmp_path / "raw", [f"slow-{i}" for i in range(64)])
    dataset = "tests.services.poison_pictures:poisoned"
    words = ["maskstream", "shards", dataset, "--root", tmp_path / "raw", "--out", tmp_path / "out"]
    words += ["--samples-per-shard", "2", "--executor", "ray", "--json"]
    with started(None, *words, start_new_session=True) as driver:
        while not list((tmp_path / "out").glob("**/*.tar")):
            assert driver.poll() is None
            time.sleep(0.1)
        children = subprocess.run(["pgrep", "-s", str(driver.pid)], capture_output=True, text=True).stdout.split()
        assert len(children) > 3
        driver.send_signal(signal.SIGINT)
        assert driver.wait(180) == 130
    deadline = time.monotonic() + 60  # what was killed is gone a moment later
    while left := [child for child in children if is_running(int(child))]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert contents(tmp_path / "out")
    assert not (tmp_path / "out/train/dataset.json").exists()


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
