"""Kills what makes versions of a split at random moments: the same commands go on, to the same files."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import obstore

from maskstream.preprocess.versions import append, divide, erase, merge, remove
from maskstream.shards.format.dataset import is_split, read_dataset_json
from maskstream.shards.stores.client import make_client
from maskstream.shards.stores.local_files import LOCK
from maskstream.shards.stores.open import open_store
from maskstream.shards.stores.output import Location, within

from ..preprocess.versions.small_splits import written
from .kills import Job, kills
from .where import HERE, Where

N_SAMPLES = 12
REMOVED, ERASED = ["k3", "k102"], ["k1", "k2", "k107", "k201"]


def versions(raw: Path, out: Path, where: Where = HERE) -> None:
    """Appends to a split, removes from it, holds some of it out, merges it with another, erases from both, from one
    with the name of a label that both have, and merges again.
    """
    where.enter()
    place: Location = where.location(out) if where.store != "local" else out
    one, other, both, held = (within(place, name) for name in ("one", "other", "both", "held"))
    for name, split in (("a", one), ("c", other)):
        if not is_split(open_store(str(split))):
            copy(raw / name, split)
    if version(one) == 1:
        append(one, raw / "b")
    if version(one) == 2:
        remove(one, REMOVED)
    if version(one) == 3:
        divide(one, 0.25, out=held)
    if version(one) == 4 and version(other) == 1:
        merge(both, [one, other])
    erase(one, ERASED[:3], words=True)
    erase(other, ERASED[3:])
    merge(both, [one, other])


def version(split: Location) -> int:
    """The number of the current version."""
    return int(read_dataset_json(str(split))["version"])


def copy(split: Path, to: Location) -> None:
    """Copy a split, dataset.json last."""
    paths = sorted((path for path in split.rglob("*") if path.is_file()), key=lambda path: path.name == "dataset.json")
    for path in paths:
        name = path.relative_to(split).as_posix()
        if isinstance(to, Path):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to / f"{name}.copy")
            (to / f"{name}.copy").rename(to / name)
        else:
            obstore.put(make_client(str(to)), name, path)


def contents(out: Path, where: Where = HERE) -> dict[str, str]:
    """What is in the folders of the splits."""
    if where.store == "local":
        found = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    else:
        found = where.files(out)
    return {name: hashlib.sha256(data).hexdigest() for name, data in found.items() if not name.endswith(LOCK)}


def is_finished(out: Path, where: Where = HERE) -> bool:
    """Whether the splits are merged as they are to be."""
    both = str(within(where.location(out) if where.store != "local" else out, "both"))
    return is_split(open_store(both)) and version(both) == 2


def attack(count: int, seed: int, folder: Path, where: Where = HERE) -> Counter[str]:
    """Kills the making of versions `count` times."""
    for number, name in enumerate("abc"):
        lone = 1 if name == "a" else -1
        written(folder / "raw" / name, 100 * number, names=("x", "y", "secret"), n=N_SAMPLES, lone=lone)
    job = Job(
        run=partial(versions, folder / "raw", where=where),
        outcome=partial(contents, where=where),
        finished=partial(is_finished, where=where),
    )
    return kills(job, count, seed, folder)
