"""The job of the tests on a folder of pictures: small shards, in this process, with some rejects."""

from pathlib import Path
from typing import Any

from maskstream.preprocess import make_shards
from maskstream.preprocess.job.shards import JobReport


def run(raw: Path, out: Path, **settings: Any) -> JobReport:
    given: dict[str, Any] = {"workers": 0, "max_rejects": 0.2, "samples_per_shard": 3, "pauses_s": (0.01,)}
    return make_shards("image-folder", raw, out, **{**given, **settings})
