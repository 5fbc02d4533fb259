"""What masks cost: CPU time per sample of every scheme, at its paper's grid, on one thread.

    python benchmarks/masks.py [--seconds 0.3] [--rounds 5] [--out masks.json]

Maps are drawn for one sample after another, as a loader's worker does; making a sample's generator is a row of its own.
Schemes take turns, round after round; the figure is the median. A flag marks those above 100 us. RetroMAE's masks are
measured against a loop over words too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import facts
from rich.console import Console
from rich.table import Table

from maskstream.pipelines.masks import MASKS, Cues, DecoderRows, Draw, TokenGrid, WholeWords
from maskstream.pipelines.stream.place import Place

LIMIT_US = 100.0
COSTLY = {
    "motion-guided": "follows flow: a warp for each frame",
    "fastdit-3d": "32,768 tokens",
    "retromae": "a 512 x 512 matrix out of 256 masks",
}
"""What is allowed to cost more, and why."""

GENERATOR = "(a view's generator)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A scheme on its paper's grid."""

    grid: TokenGrid
    cues: Cues = field(default_factory=Cues)


def flow(frames: int) -> np.ndarray:
    """A smooth motion to the right and down, in the cells of 8 pixels that DIS and the codec give."""
    return np.broadcast_to(np.array([3.0, 1.5], np.float32), (frames - 1, 28, 28, 2)).copy()


def text(length: int, seed: int = 0) -> Cues:
    """Words of 1 to 3 pieces between two special tokens, with classes, scores and ids."""
    rng = np.random.default_rng(seed)
    words = np.repeat(np.arange(length), rng.choice([1, 1, 1, 2, 3], size=length))[: length - 2]
    return Cues(
        words=np.concatenate([[-1], words, [-1]]).astype(np.int64),
        classes=np.concatenate([[-1], words % 17, [-1]]).astype(np.int64),
        scores=rng.random(length).astype(np.float32),
        tokens=rng.integers(1000, 30000, size=length),
    )


def cases() -> dict[str, Case]:
    """The grids of the papers, by the name of the scheme."""
    video = Case(grid=TokenGrid.video(16, 224, 224), cues=Cues(flow=flow(16)))
    image, small = plane(14), plane(16)
    sound = TokenGrid(axes=("time", "freq"), shape=(64, 8), patch=(16, 16))
    occupied = np.random.default_rng(0).random(32**3) < 0.02
    words128 = Case(grid=TokenGrid(axes=("token",), shape=(128,), patch=(1,)), cues=text(128))
    words512 = Case(grid=TokenGrid(axes=("token",), shape=(512,), patch=(1,)), cues=text(512))
    found = {
        "audio-mae": Case(grid=sound),
        "audio-mae-strips": Case(grid=sound),
        "avsiam-audio": Case(grid=TokenGrid(axes=("freq", "time"), shape=(8, 64), patch=(16, 16))),
        "fastdit-3d": Case(
            grid=TokenGrid(axes=("x", "y", "z"), shape=(32, 32, 32), patch=(4, 4, 4)), cues=Cues(occupied=occupied)
        ),
        "lmd": Case(grid=plane(7)),
        "m3ae-image": Case(grid=plane(18)),
        "mage": Case(grid=small),
        "maskgit": Case(grid=small),
        "mesh-mask": Case(grid=TokenGrid(axes=("node",), shape=(1885,), patch=(1,))),
        "mpm": Case(grid=TokenGrid(axes=("frame", "joint"), shape=(243, 16), patch=(1, 1))),
        "mpm-limbs": Case(grid=TokenGrid(axes=("frame", "joint"), shape=(243, 17), patch=(1, 1))),
        "oneref": Case(grid=plane(24), cues=Cues(box=np.array([0.2, 0.3, 0.6, 0.9]))),
        "rgb-depth": Case(grid=TokenGrid(axes=("modality", "h", "w"), shape=(2, 14, 14), patch=(1, 16, 16))),
        "retromae": words512,
    }
    found |= dict.fromkeys(("mosaicbert", "mrd", "ptw", "pmlm", "roar", "oneref-text", "m3ae-text"), words128)
    found |= dict.fromkeys(("avsiam-image", "beit", "complementary", "cropmae", "dmae", "mae"), Case(grid=image))
    found |= dict.fromkeys(
        ("diffmavil", "frames", "maskvit", "motion-guided", "random", "tube", "v-jepa", "videomae2"), video
    )
    missing = sorted(set(MASKS) - set(found))
    if missing:
        raise SystemExit(f"no grid is known for {', '.join(missing)}: add a case to {__file__}")
    return found


def plane(side: int) -> TokenGrid:
    """side x side patches of a picture."""
    return TokenGrid(axes=("h", "w"), shape=(side, side), patch=(16, 16))


def cpu_us(work: Callable[[int], Any], seconds: float) -> float:
    """CPU microseconds of a call of `work`, which gets the number of the call."""
    number, start = 0, time.process_time()
    while (passed := time.process_time() - start) < seconds:
        for _ in range(20):
            work(number)
            number += 1
    return 1e6 * passed / number


def maps_of(name: str, case: Case) -> Callable[[int], Any]:
    """Draws the maps of sample after sample; the second view where there are two."""
    mask, place = MASKS[name](), Place(row=3, rows=32, progress=0.5)
    draws = [Draw.of(0, 0, f"sample{i}", 1, place, case.cues) for i in range(64)]
    return lambda i: mask.maps(case.grid, draws[i % 64])


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
    cues, grid = text(512), TokenGrid(axes=("token",), shape=(512,), patch=(1,))
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
    parser.add_argument("--seconds", type=float, default=0.3, help="of each scheme in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    schemes = cases()
    works = {name: maps_of(name, case) for name, case in sorted(schemes.items())}
    works[GENERATOR] = lambda i: Draw.of(0, 0, f"sample{i}", 0, Place(), Cues())
    schemes[GENERATOR] = Case(grid=TokenGrid(axes=("view",), shape=(1,), patch=(1,)))
    for work in works.values():
        work(0)
    rounds = [{name: cpu_us(work, arguments.seconds) for name, work in works.items()} for _ in range(arguments.rounds)]
    loops = [retromae(arguments.seconds) for _ in range(arguments.rounds)]
    rows = {name: [r[name] for r in rounds] for name in works}
    compared = {key: statistics.median(loop[key] for loop in loops) for key in loops[0]}
    show(rows, schemes, compared)
    if arguments.out:
        found = {
            "cpu_us_per_sample": rows,
            "retromae": compared,
            "facts": facts(("numpy", "torch", "opencv-python-headless")),
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(found, indent=1))


def show(rows: dict[str, list[float]], schemes: dict[str, Case], compared: dict[str, float]) -> None:
    """Prints the table."""
    table = Table(title="CPU us per sample")
    for column in ("scheme", "grid", "median", "min - max", ""):
        table.add_column(column, justify="right" if column in ("median", "min - max") else "left", no_wrap=True)
    for name, values in sorted(rows.items(), key=lambda item: statistics.median(item[1])):
        median, grid = statistics.median(values), schemes[name].grid
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
