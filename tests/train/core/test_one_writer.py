"""One run writes into a folder: a second one is refused at once, whatever the first one is doing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskstream.cli import main
from maskstream.shards.errors import BusyError, ResumeError
from maskstream.shards.stores.local_files import LOCK, sole_writer
from maskstream.train import Trainer, read_metrics, train

from .until_told import RECIPE

SCRIPT = Path(__file__).with_name("until_told.py")


@pytest.fixture
def trainer(recipe, synthetic_loader, tmp_path):
    def build(**settings):
        return Trainer(recipe, synthetic_loader(batches=5), tmp_path / "run", progress=False, **settings)

    return build


@pytest.mark.slow
def test_a_second_training_is_refused_at_once_and_one_that_was_killed_is_in_nobodys_way(
    eleven, tmp_path, capfd, monkeypatch
):
    """The second changes nothing in the folder; when the first is gone, it trains there."""
    out = tmp_path / "run"
    command = [sys.executable, SCRIPT, eleven, out, "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}) as first:
        try:
            assert first.stdout.readline() == b"workers\n"
            files = sorted(path for path in out.rglob("*") if path.is_file())
            for resume in (True, False):
                with pytest.raises(BusyError, match=rf"process {first.pid} on .*choose a different output folder"):
                    train(RECIPE, eleven, out, steps=9, device="cpu", threads=1, progress=False, resume=resume)
                assert first.poll() is None
            arguments = ["train", "videomae-tiny", "--data", str(eleven), "--out", str(out), "--device", "cpu"]
            monkeypatch.setattr("sys.argv", ["maskstream", *arguments, "--set", "clip.size=64", "--no-resume"])
            with pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == 1
            assert f"process {first.pid}" in capfd.readouterr().err
            assert sorted(path for path in out.rglob("*") if path.is_file()) == files
        finally:
            first.kill()
    assert train(RECIPE, eleven, out, steps=2, device="cpu", threads=1, progress=False, resume=False).finished
    assert not (out / LOCK).exists()


@pytest.mark.slow
def test_all_ranks_of_a_second_training_end_at_once(eleven, tmp_path):
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *ranks, SCRIPT, eleven, tmp_path, "0"]
    with sole_writer(tmp_path):
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
    assert ended.returncode != 0
    assert f"BusyError: another run is writing to {tmp_path} (process {os.getpid()}" in ended.stderr
    assert "rank 1 stopped because another rank failed" in ended.stderr


def test_the_lock_is_held_from_the_trainers_making_to_the_end_of_its_run(trainer, tmp_path):
    first = trainer(steps=4)
    with pytest.raises(BusyError):
        trainer(steps=4, resume=False)
    first.run(until=2)
    second = trainer(steps=4)
    with pytest.raises(BusyError):
        first.run()
    assert second.run().step == 4
    with pytest.raises(ResumeError, match="another run has written to this folder"):
        first.run()
    assert [m.step for m in read_metrics(tmp_path / "run/metrics.jsonl")] == [1, 2, 3, 4]


def test_a_failure_or_a_trainer_that_is_gone_lets_go(trainer, tmp_path, synthetic_loader):
    trainer(steps=2).run()
    with pytest.raises(ResumeError):
        trainer(steps=2, seed=1)
    unused = trainer(steps=4)
    del unused
    with sole_writer(tmp_path / "run"):
        pass


def test_reading_a_run_needs_no_lock(trainer, tmp_path):
    trainer(steps=2).run()
    with sole_writer(tmp_path / "run"):
        assert len(read_metrics(tmp_path / "run/metrics.jsonl")) == 2
