"""Draws recordings to try it: python -m examples.sensors.draw FOLDER [COUNT]"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def draw(folder: Path, count: int = 32) -> None:
    """Writes COUNT recordings of walking and running: three sensors of one movement, each at its own phase."""
    for number in range(count):
        rng = np.random.default_rng(number)
        label, hertz = ("walk", 1.5) if number % 2 else ("run", 3.0)
        time_s = np.arange(int(rng.integers(100, 200)))[:, None] / 50
        turns = hertz * time_s + rng.random() + np.array([0.0, 0.2, 0.5])
        path = folder / ("val" if number % 4 > 1 else "train") / label / f"{number:04}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(path, np.sin(2 * np.pi * turns) + rng.normal(scale=0.1, size=turns.shape), "%.5f", delimiter=",")


if __name__ == "__main__":
    draw(Path(sys.argv[1]), *map(int, sys.argv[2:]))
