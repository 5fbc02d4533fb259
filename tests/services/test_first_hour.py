"""The script of the first hour that writes to a bucket and trains from it, on a real S3 server with two ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskstream.shards.format.manifest import Manifest

from ..examples.running import EXAMPLES, losses, run

pytestmark = pytest.mark.services


def test_from_parts_to_a_bucket_to_three_steps_of_two_ranks(s3: str, tmp_path: Path) -> None:
    run(EXAMPLES / "first_hour/cluster.sh", folder=tmp_path, BUCKET=f"{s3}/k400")
    out = tmp_path / "data/first_hour/cluster"
    assert len(Manifest.load(f"{s3}/k400/train")) == 3
    assert len(losses(out / "run")) == 3
    assert json.loads((out / "run/run.json").read_text())["ranks"] == 2
    assert list((out / "cache").rglob("*"))


def test_a_bucket_is_asked_for(tmp_path: Path) -> None:
    said = run(EXAMPLES / "first_hour/cluster.sh", folder=tmp_path, fails=True)
    assert "say where the shards go, such as BUCKET=s3://my-bucket/k400" in said
    said = run(EXAMPLES / "first_hour/cluster.sh", folder=tmp_path, fails=True, BUCKET="my-bucket/k400")
    assert "BUCKET=my-bucket/k400 is not a bucket URL; pass one such as s3://my-bucket/k400" in said
    assert not list(tmp_path.iterdir())
