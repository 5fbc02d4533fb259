"""Parts of a job that write into one place of an object store, at the same time."""

import subprocess
import sys
from pathlib import Path

import pytest

from maskstream.preprocess import make_shards
from maskstream.preprocess.job.verification import verify_split
from maskstream.shards.errors import UnfinishedError
from maskstream.shards.format.dataset import read_dataset_json

from ..attacks.shard_kills import pictures

pytestmark = pytest.mark.services

PARTS = 3
SETTINGS = {"max_rejects": 0.2, "samples_per_shard": 3, "workers": 0}


def test_parts_and_a_finish_make_what_one_run_makes(s3: str, tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", f"{s3}/out"
    pictures(raw, 0)
    command = [sys.executable, "-m", "maskstream", "shards", "image-folder", "--root", str(raw), "--out", out]
    command += ["--samples-per-shard", "3", "--max-rejects", "0.2", "--workers", "1"]
    parts = [subprocess.Popen([*command, "--part", f"{number}/{PARTS}"]) for number in (1, 1, 3)]
    assert [part.wait() for part in parts] == [0, 0, 0]
    with pytest.raises(UnfinishedError, match=r"2 of 6 shards are not written yet: train/image-folder-000001"):
        make_shards("image-folder", raw, out, finish=True, **SETTINGS)
    subprocess.run([*command, "--part", "1/1"], check=True)
    make_shards("image-folder", raw, out, finish=True, **SETTINGS)
    make_shards("image-folder", raw, tmp_path / "here", **SETTINGS)
    assert read_dataset_json(f"{out}/train") == read_dataset_json(tmp_path / "here/train")
    assert verify_split(f"{out}/train", workers=2) == verify_split(tmp_path / "here/train", workers=0)
