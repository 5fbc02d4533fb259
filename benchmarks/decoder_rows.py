"""RetroMAE's attention rows: `masks.DecoderRows` against the published loops, in CPU time of one thread.

    python benchmarks/decoder_rows.py

The loops make min(L, 256) whole-word masks one by one and copy one of them for each of the L rows. Here the word groups
are made once; the published collator rebuilds them from the tokens' strings for every mask.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from statistics import median

import numpy as np
from rich.console import Console

from maskstream.pipelines.masks import Cues, DecoderRows, Draw, TokenGrid

RATIO, POOL = 0.5, 256


def loops(words: list[int], rng: random.Random) -> list[list[int]]:
    """The attention matrix of the published loops; 1 = attends."""
    n = len(words)
    groups: dict[int, list[int]] = {}
    for place, word in enumerate(words):
        if word >= 0:
            groups.setdefault(word, []).append(place)
    masks = [one_mask(n, list(groups.values()), max(1, round(n * RATIO)), rng) for _ in range(min(n, POOL))]
    rows = []
    for i in range(n):
        row = list(rng.choice(masks))
        row[i] = 0
        rows.append(row)
    return rows


def one_mask(n: int, candidates: list[list[int]], count: int, rng: random.Random) -> list[int]:
    rng.shuffle(candidates)
    seen, hidden = [1] * n, 0
    for word in candidates:
        if hidden >= count:
            break
        if hidden + len(word) <= count:
            hidden += len(word)
            for place in word:
                seen[place] = 0
    return seen


def cpu_us(function: Callable[[], object], times: int) -> float:
    """The median of the CPU time of a call, in microseconds."""
    function()
    taken = []
    for _ in range(times):
        start = time.process_time()
        function()
        taken.append((time.process_time() - start) * 1e6)
    return median(taken)


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0]).parse_args()
    console = Console(highlight=False)
    console.print("tokens   loops us   ours us   times faster")
    for n in (128, 150, 512):
        rng = np.random.Generator(np.random.Philox(key=n))
        words = np.cumsum(rng.random(n) < 0.8)
        words[[0, -1]] = -1
        grid = TokenGrid(axes=("token",), shape=(n,), patch=(1,))
        mask, draw, loop_rng, listed = (
            DecoderRows(ratio=RATIO, pool=POOL),
            Draw(rng=rng, cues=Cues(words=words)),
            random.Random(0),
            words.tolist(),
        )
        theirs = cpu_us(lambda: np.array(loops(listed, loop_rng), dtype=np.bool_), 9)  # noqa: B023
        ours = cpu_us(lambda: mask.attend(grid, draw), 41)  # noqa: B023
        console.print(f"{n:6}   {theirs:8.0f}   {ours:7.0f}   {theirs / ours:12.1f}")


if __name__ == "__main__":
    main()
