"""Every command that makes a version, killed at a random step, repeated, and repeated again: the files are those of one
undisturbed call.

"exact" and "refused" keep the promise; "wrong" are other files, "foreign" is another exception.
"""

from __future__ import annotations

import shutil
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from maskstream.preprocess.versions import append, divide, erase, merge, remove, take_few
from maskstream.shards.errors import MaskstreamError
from maskstream.shards.format.dataset import is_split
from maskstream.shards.stores.local_files import LOCK
from maskstream.shards.stores.open import open_store

from ..preprocess.versions.killed_forks import killed_fork
from ..preprocess.versions.small_splits import contents, written
from ..preprocess.versions.test_dependents import store_targets

MOST_STEPS = 40
MOST_COMMANDS = 5

Command = tuple[str, Callable[[Path], object]]


def commands(rng: np.random.Generator, raw: Path) -> list[Command]:
    """Some commands in a random order, each of a folder of splits."""
    keys = [f"k{number}" for number in rng.permutation(12)[:4].tolist()]
    legal: list[Command] = [
        ("append", lambda out: append(out / "train", raw / "more")),
        ("divide", lambda out: divide(out / "train", 0.25, out=out / "val")),
        ("few", lambda out: take_few(out / "train", 2)),
        ("merge", lambda out: merge(out / "both", [out / "train", raw / "other"])),
        ("targets", lambda out: is_split(open_store(out / "t")) or store_targets(out / "train", out / "t")),
        ("remove", lambda out: remove(out / "train", keys[:2])),
        ("remove one", lambda out: remove(out / "train", keys[1:3])),
        ("erase", lambda out: erase(out / "train", keys[2:], words=True)),
        ("erase one", lambda out: erase(out / "train", keys[:1])),
    ]
    return [legal[number] for number in rng.permutation(len(legal))[: int(rng.integers(1, MOST_COMMANDS + 1))]]


def done(command: Command, out: Path) -> str:
    """How a command ended: "", or what was refused."""
    try:
        command[1](out)
    except (MaskstreamError, ValueError) as error:
        return f"{type(error).__name__} {str(error).replace(str(out), '')}"
    return ""


def files(out: Path) -> dict[str, bytes]:
    """What is in the folder, but for locks."""
    return {name: data for name, data in contents(out).items() if not name.endswith(LOCK)}


def end_of(folder: Path, rng: np.random.Generator) -> str:
    """Do some commands undisturbed, and again with kills and repeats."""
    todo, refused = commands(rng, folder.parent / "raw"), 0
    names = ", ".join(name for name, _ in todo)
    for out in (folder / "whole", folder / "killed"):
        shutil.copytree(folder.parent / "raw/train", out / "train")
    for command in todo:
        said = done(command, folder / "whole")
        refused += bool(said)
        if command[0] != "targets":
            with suppress(MaskstreamError, ValueError):
                killed_fork(int(rng.integers(MOST_STEPS)), partial(done, command, folder / "killed"))
        again = [done(command, folder / "killed") for _ in range(2)]
        if not said and again != ["", ""]:
            return f"wrong {names}: {command[0]} said {again}"
        if (found := files(folder / "killed")) != (wanted := files(folder / "whole")):
            differs = sorted(name for name in found | wanted if found.get(name) != wanted.get(name))
            return f"wrong {names}: after {command[0]}: {differs[:6]}"
    return "refused" if refused else "exact"


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Kills and repeats `count` series of commands."""
    raw = folder / "raw"
    written(raw / "train", 0, ("x", "y", "secret"), n=12, lone=4)
    written(raw / "more", 100, ("x", "y", "secret"), n=5)
    written(raw / "other", 200, ("x", "y", "secret"), n=4)
    ends: Counter[str] = Counter()
    for number in range(count):
        own = folder / str(number)
        try:
            end = end_of(own, np.random.default_rng([seed, number]))
        except Exception:
            end = f"foreign {traceback.format_exc()}"
        shutil.rmtree(own)
        ends[end.split()[0]] += 1
        if end.split()[0] not in ("exact", "refused"):
            print(f"repeats {number} of seed {seed}: {end}", flush=True)
    return ends
