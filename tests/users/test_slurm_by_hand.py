"""Scripts for Slurm, read and run by hand, that write into a bucket: parts in any order, and then the finish.

The user's cluster has a login node without `sbatch`, a queue of its own, and an object store.
"""

import os
import subprocess
from pathlib import Path

import pytest

from maskstream.pipelines import VideoClip, video_loader

from ..s3_double import S3Double
from .conftest import Command, plain, write_video

LEVELS = tuple(range(40, 220, 20))


@pytest.mark.slow
def test_the_scripts_write_the_split_that_one_machine_would(
    maskstream: Command, tmp_path: Path, double: S3Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no sbatch, whatever this machine has
    for level in LEVELS:
        write_video(tmp_path / f"raw/{'dark' if level < 120 else 'light'}/{level}.mp4", [plain(level)] * 30)
    command = "shards folder --root raw --samples-per-shard 2"
    said = maskstream(f"{command} --out s3://bucket/mine --executor slurm --parts 3 --sbatch '-p cpu --mem=4G'")
    assert "#SBATCH" in said.out
    assert not [name for name in double.objects if name.endswith(".tar")]

    def by_hand(script: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/bash", f"slurm-folder/{script}.sh"],
            cwd=tmp_path,
            env=os.environ | {"SLURM_CPUS_ON_NODE": "1", "PATH": "/usr/bin:/bin"} | env,
            capture_output=True,
            text=True,
            check=False,
        )

    for part in ("2", "1"):
        done = by_hand("parts", SLURM_ARRAY_TASK_ID=part)
        assert done.returncode == 0, done.stderr
    early = by_hand("finish")
    assert early.returncode != 0
    assert "1 of 5 shards are not written yet: train/folder-000002.tar" in " ".join(early.stderr.split())
    assert by_hand("parts", SLURM_ARRAY_TASK_ID="3").returncode == 0
    finished = by_hand("finish")
    assert finished.returncode == 0, finished.stderr

    maskstream("inspect s3://bucket/mine/train")
    maskstream(f"{command} --out alone --workers 1")
    alone = {path.name: path.read_bytes() for path in (tmp_path / "alone/train").glob("*.tar")}
    assert len(alone) == 5
    assert {n.rpartition("/")[2]: bytes(d) for n, d in double.objects.items() if n.endswith(".tar")} == alone

    clip = VideoClip(frames=4, stride=4, size=32)
    loader = video_loader("s3://bucket/mine/train", clip=clip, batch_size=3, seed=0)
    means = [round(float(video.float().mean())) for batch in loader for video in batch.video]
    assert all(abs(mean - level) < 3 for mean, level in zip(sorted(means), LEVELS, strict=True))
