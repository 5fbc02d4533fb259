"""Kills `maskstream shards` at random moments: the same command goes on, to the same files with the same bytes."""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from maskstream.preprocess import make_shards
from maskstream.shards.format.dataset import DATASET_JSON
from maskstream.shards.format.records import RECORDS
from maskstream.shards.stores.local_files import LOCK
from maskstream.shards.stores.output import open_output

from .kills import Job, kills
from .where import HERE, Where

N_IMAGES, SHARD = 18, 3


def pictures(root: Path, seed: int) -> None:
    """Folders of two classes of noisy pictures, one of which is cut off."""
    rng = np.random.default_rng(seed)
    for i in range(N_IMAGES):
        path = root / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (60, 80 + i, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:3000])


def shards(root: Path, out: Path, where: Where = HERE) -> None:
    """The command's work, in this process or in tasks of a cluster."""
    where.enter()
    executor = where.executor()
    workers = 0 if executor is None else None
    settings = {"max_rejects": 0.2, "samples_per_shard": SHARD, "pauses_s": (0.01, 0.02)}
    make_shards("image-folder", root, where.location(out), workers=workers, executor=executor, **settings)


def contents(out: Path, where: Where = HERE) -> dict[str, str]:
    """What is in the folder, but for the job's records, which hold times, and the lock, which a killed job leaves."""
    others = {RECORDS, LOCK}
    if where.store != "local":
        files = where.files(out)
        return {name: hashlib.sha256(files[name]).hexdigest() for name in files if others.isdisjoint(name.split("/"))}
    paths = [path for path in sorted(out.rglob("*")) if path.is_file() and others.isdisjoint(path.parts)]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def is_finished(out: Path, where: Where = HERE) -> bool:
    """Whether a reader would take the folder for a split."""
    if where.store != "local":
        return open_output(f"{where.location(out)}/train").size(DATASET_JSON) is not None
    return (out / "train/dataset.json").exists()


def attack(count: int, seed: int, folder: Path, where: Where = HERE) -> Counter[str]:
    """Kills the making of shards of pictures `count` times."""
    pictures(folder / "raw", seed)
    job = Job(
        run=partial(shards, folder / "raw", where=where),
        outcome=partial(contents, where=where),
        finished=partial(is_finished, where=where),
    )
    return kills(job, count, seed, folder)
