"""Exports of small runs, used on raw files of odd sizes and lengths as their model cards say.

    python -m tests.attacks raw-exports -n 100 --seed 0

An attack is a raw sample; families and targets take turns, with other weights and settings each time. "same" if the
card gives what `maskstream embed` gives, or a classifier's own scores, to 1e-5 of the norm; else "wrong".
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..train.raw_exports import FAMILIES, Draws, Family, measure

EACH = 10
"""How many samples are tried with one export."""


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Compares `count` raw samples."""
    draws, ends = np.random.default_rng(seed), Counter[str]()
    names = draws.permutation(list(FAMILIES)).tolist()
    for turn, first in enumerate(range(0, count, EACH)):
        name, size = names[turn % len(names)], min(EACH, count - first)
        family = varied(FAMILIES[name], draws)
        targets = [*family.targets, *(f"{to}, tuned" for to in family.tuned)]
        to, _, tuned = str(targets[draws.integers(len(targets))]).partition(", ")
        one = replace(family, targets=() if tuned else (to,), tuned=(to,) if tuned else ())
        (found,) = measure({name: one}, folder / str(turn), max(size, 4), seed + turn)
        wrong = int((~(found.distances[:size] <= 1e-5)).sum())
        if wrong:
            print(f"seed {seed}, turn {turn}: {one}: {found.distances}")
        ends += Counter(wrong=wrong, same=size - wrong)
    return +ends


def varied(family: Family, draws: Draws) -> Family:
    """The family with drawn settings of its data."""
    side, patch = int(draws.choice([32, 48, 64])), int(draws.choice([8, 16]))
    kind: dict[str, tuple[str, ...]] = {
        "picture": (f"data.size={side}", f"data.patch={patch}"),
        "clip": (
            f"clip.size={side}",
            f"clip.frames={int(draws.choice([2, 4, 8]))}",
            f"clip.stride={int(draws.integers(1, 6))}",
            *([] if "mgmae" in family.recipe else [f"clip.short={draws.choice(['repeat', 'loop'])}"]),  # flow loops not
        ),
        "sound": (f"seconds={draws.choice([0.64, 1.28, 1.92])}",),
        "text": (f"data.length={int(draws.choice([16, 48, 100]))}",),
    }
    return replace(family, cuts=(*family.cuts, *kind[family.kind]))
