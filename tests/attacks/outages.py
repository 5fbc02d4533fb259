"""Takes the raw data away at random moments of `maskstream shards`, and puts them back during the run or after it.

"exact": the run finished with the bytes of an undisturbed one. "outage": it ended with OutageError or DatasetError,
left nothing that looks like a split, and the same command then gave these bytes.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from functools import partial
from pathlib import Path
from threading import Timer

import numpy as np

from maskstream.shards.errors import DatasetError, OutageError

from .kills import ended
from .shard_kills import contents, is_finished, pictures, shards
from .where import HERE, Where


def tried(root: Path, out: Path, where: Where) -> None:
    """Makes shards, or leaves a note beside them that says why not."""
    try:
        shards(root, out, where)
    except (OutageError, DatasetError) as error:
        out.with_name("outage.txt").write_text(str(error))


def end_of(root: Path, out: Path, wanted: dict[str, str], moments: tuple[float, float | None], where: Where) -> str:
    """One run whose root is away from the first moment on, up to the second or until the run has ended."""
    job, aside, note = partial(tried, root, where=where), root.with_name("aside"), out.with_name("outage.txt")
    away = Timer(moments[0], root.rename, [aside])
    back = Timer(moments[1] or 0, aside.rename, [root])
    away.start()
    if moments[1] is not None:
        back.start()
    end = ended(job, out)
    away.join()
    if moments[1] is not None:
        back.join()
    else:
        aside.rename(root)
    if end != "finished":
        return end
    if note.exists():
        note.unlink()
        if is_finished(out, where):
            return "wrong"
        end = ended(job, out)
        return "outage" if end == "finished" and not note.exists() and contents(out, where) == wanted else "wrong"
    return "exact" if contents(out, where) == wanted else "wrong"


def attack(count: int, seed: int, folder: Path, where: Where = HERE) -> Counter[str]:
    """Takes the root away `count` times."""
    root, out = folder / "raw", folder / "run/out"
    pictures(root, seed)
    for whole in (folder / "warm/out", folder / "whole/out"):
        begun = time.monotonic()
        assert ended(partial(shards, root, where=where), whole) == "finished"
        length_s = time.monotonic() - begun
    wanted = contents(whole, where)
    ends: Counter[str] = Counter()
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        out.parent.mkdir()
        first = rng.uniform(0, length_s)
        second = first + rng.uniform(0, 0.3) * length_s + 0.001 if rng.random() < 0.5 else None
        end = end_of(root, out, wanted, (first, second), where)
        ends[end] += 1
        if end not in ("exact", "outage"):
            print(f"{end}: seed {seed}, outage {number}")
        shutil.rmtree(out.parent)
    return ends
