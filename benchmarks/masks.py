"""CPU time per sample of every mask scheme, on its paper's grid, with one thread.

    python benchmarks/masks.py [--seconds 0.3] [--rounds 5] [--out masks.json]

Maps are drawn sample by sample, as in a loader's worker; making the sample's generator is a separate row. The schemes
take turns in every round, and the figure is the median. A flag marks schemes above 100 us. RetroMAE's masks are also
compared with a loop over words.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import facts
from rich.console import Console
from rich.table import Table

from maskstream.pipelines.masks import SCHEMES, Cues, DecoderRows, Draw, Mask, TokenGrid, WholeWords
from maskstream.pipelines.masks.core.scheme import made_up_cues
from maskstream.pipelines.stream.rng import Place

LIMIT_US = 100.0
COSTLY = {
    "by-energy": "compares each frame with the one before",
    "motion-guided": "follows flow: a warp for each frame",
    "fastdit-3d": "32,768 tokens",
    "retromae": "a 512 x 512 matrix out of 256 masks",
}
"""The schemes that may cost more, and the reasons."""

GENERATOR = "(a view's generator)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A mask on its paper's grid, with made-up cues."""

    mask: Mask
    grid: TokenGrid
    cues: Cues


def cases() -> dict[str, Case]:
    """The schemes that have a name."""
    return {
        s.name: Case(mask=s.mask, grid=s.grid, cues=made_up_cues(s.mask.needs, s.grid, np.random.default_rng(0)))
        for s in SCHEMES
        if s.name
    }


def cpu_us(work: Callable[[int], Any], seconds: float) -> float:
    """CPU microseconds of a call of `work`, which gets the number of the call."""
    number, start = 0, time.process_time()
    while (passed := time.process_time() - start) < seconds:
        for _ in range(20):
            work(number)
            number += 1
    return 1e6 * passed / number


def maps_of(case: Case) -> Callable[[int], Any]:
    """Draws the maps of sample after sample; the second view where there are two."""
    place = Place(row=3, rows=32, progress=0.5)
    draws = [Draw.of(0, 0, f"sample{i}", 1, place, case.cues) for i in range(64)]
    return lambda i: case.mask.maps(case.grid, draws[i % 64])


def one_by_one(words: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """A whole-word mask in a loop over words, as collators do it."""
    groups: list[list[int]] = []
    for place, word in enumerate(words.tolist()):
        if word < 0:
            continue
        if groups and words[groups[-1][-1]] == word:
            groups[-1].append(place)
        else:
            groups.append([place])
    rng.shuffle(groups)
    hidden, n = np.zeros(len(words), dtype=bool), 0
    for group in groups:
        if n >= count:
            break
        if n + len(group) > count:
            continue
        hidden[group] = True
        n += len(group)
    return hidden


def retromae(seconds: float) -> dict[str, float]:
    """CPU us of RetroMAE's pool of 256 whole-word masks and its matrix at 512 tokens, and of the same in a loop."""
    grid = TokenGrid(axes=("token",), shape=(512,), patch=(1,))
    cues = made_up_cues(frozenset({"words"}), grid, np.random.default_rng(0))
    words = cues.words
    assert words is not None
    mask, rng = DecoderRows(encoder=WholeWords(ratio=0.3), ratio=0.5), np.random.default_rng(0)
    draw = Draw(rng=rng, cues=cues)

    def looped(_: int) -> None:
        pool = [one_by_one(words, 256, rng) for _ in range(256)]
        matrix = np.stack([~pool[rng.integers(256)] for _ in range(512)])
        np.fill_diagonal(matrix, False)

    vectorised = cpu_us(lambda _: mask.attend(grid, draw), seconds)
    start = time.process_time()
    looped(0)
    loop = 1e6 * (time.process_time() - start)
    return {"vectorised_us": vectorised, "loop_us": loop, "ratio": loop / vectorised}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=0.3, help="seconds per scheme and round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which all schemes take turns")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    schemes = cases()
    works = {name: maps_of(case) for name, case in sorted(schemes.items())}
    works[GENERATOR] = lambda i: Draw.of(0, 0, f"sample{i}", 0, Place(), Cues())
    grids = {name: case.grid for name, case in schemes.items()}
    grids[GENERATOR] = TokenGrid(axes=("view",), shape=(1,), patch=(1,))
    for work in works.values():
        work(0)
    rounds = [{name: cpu_us(work, arguments.seconds) for name, work in works.items()} for _ in range(arguments.rounds)]
    loops = [retromae(arguments.seconds) for _ in range(arguments.rounds)]
    rows = {name: [r[name] for r in rounds] for name in works}
    compared = {key: statistics.median(loop[key] for loop in loops) for key in loops[0]}
    show(rows, grids, compared)
    if arguments.out:
        found = {
            "cpu_us_per_sample": rows,
            "retromae": compared,
            "facts": facts(("numpy", "torch", "opencv-python-headless")),
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(found, indent=1))


def show(rows: dict[str, list[float]], grids: dict[str, TokenGrid], compared: dict[str, float]) -> None:
    """Prints the table."""
    table = Table(title="CPU us per sample")
    for column in ("scheme", "grid", "median", "min - max", ""):
        table.add_column(column, justify="right" if column in ("median", "min - max") else "left", no_wrap=True)
    for name, values in sorted(rows.items(), key=lambda item: statistics.median(item[1])):
        median, grid = statistics.median(values), grids[name]
        over = "" if median <= LIMIT_US else f"above {LIMIT_US:.0f}: {COSTLY.get(name, 'TOO SLOW')}"
        sides = " ".join(f"{axis} {n}" for axis, n in zip(grid.axes, grid.shape, strict=True))
        table.add_row(name, sides, f"{median:.0f}", f"{min(values):.0f} - {max(values):.0f}", over)
    console = Console(width=max(130, Console().width), highlight=False)
    console.print(table)
    console.print(
        f"RetroMAE's 256 masks and matrix at 512 tokens: {compared['vectorised_us']:.0f} us, in a loop "
        f"{compared['loop_us']:.0f} us: {compared['ratio']:.0f} times"
    )


if __name__ == "__main__":
    main()
