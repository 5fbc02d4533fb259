"""Kills `maskstream index` at random moments: the same command goes on, to the same bytes."""

from __future__ import annotations

import hashlib
import io
import wave
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from maskstream.preprocess import index_tars

from ..preprocess.foreign.foreign_tars import write_tar
from .kills import Job, kills

N_TARS, N_SOUNDS = 6, 4


def sound(rng: np.random.Generator) -> bytes:
    """A wav of noise, about 0.3 s."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16000)
        out.writeframes(rng.integers(-9000, 9000, int(rng.integers(4000, 6000))).astype("<i2").tobytes())
    return file.getvalue()


def index(tars: Path, out: Path) -> None:
    """The command's work, in this process."""
    index_tars([tars], out, as_is=True, workers=0)


def contents(out: Path) -> dict[str, str]:
    """What is in the folder of a split, hidden files too."""
    paths = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def is_finished(out: Path) -> bool:
    """Whether a reader would take the folder for a split, and no run would go on in it."""
    return (out / "dataset.json").exists() and not (out / ".records").exists()


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Kills the indexing of tars of sounds, one of them cut, `count` times."""
    rng = np.random.default_rng(seed)
    tars = folder / "tars"
    tars.mkdir()
    for n in range(N_TARS):
        members = [(f"{n}-{i}.wav", sound(rng)) for i in range(N_SOUNDS)]
        write_tar(tars / f"t-{n:03d}.tar", [*members, (f"{n}-cut.wav", members[0][1][:30])])
    job = Job(run=partial(index, tars), outcome=contents, finished=is_finished)
    return kills(job, count, seed, folder)
