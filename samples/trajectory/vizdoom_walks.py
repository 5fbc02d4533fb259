"""Walks through the 68 maps of Freedoom, recorded in ViZDoom while the shards are written.

A scripted explorer walks to goals 5 to 16 m away, around obstacles and with smooth turns. A walk has 96 frames of
160 x 120 pixels, 7 a second, with depth (in levels of 22 cm, as the game has it) and poses. A map is in one split only.
It needs `pip install 'maskstream[walks]'`; nothing else is downloaded, and nothing is drawn by a GPU.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import xxhash

from maskstream.preprocess.datasets.dataset import Dataset, held_out_groups
from maskstream.preprocess.encode.trajectory.encoder import TrajectoryEncoder, Walk
from maskstream.preprocess.source import Source

from .vizdoom import VizdoomWalk, Wad, check_vizdoom

WALKS: Mapping[str, int] = {"train": 4, "val": 4}
"""The number of walks through each map of a split."""


def vizdoom_walks(root: Path) -> Dataset:
    """The walks through all maps. `root` is not used. DatasetError if vizdoom is not installed."""
    return walks_through("vizdoom-walks", root, WALKS)


def walks_through(name: str, root: Path, walks: Mapping[str, int]) -> Dataset:
    """The dataset with some walks through each map of a split; the maps of `val` are a fifth of all."""
    check_vizdoom()
    maps = [f"{wad}/{level}" for wad, level in levels()]
    held_out = held_out_groups((0, one) for one in maps)
    splits: dict[str, list[Source]] = {"train": [], "val": []}
    for wad, level in levels():
        split = "val" if f"{wad}/{level}" in held_out else "train"
        for number in range(walks[split]):
            own = f"{wad}/{level}/{number:02d}"
            walk = VizdoomWalk(wad=wad, map=level, seed=walk_seed(own))
            meta = {"recorded": "vizdoom", "walk": asdict(walk), "map": f"{wad}/{level}"}
            splits[split].append(Source(id=own, path=root / own, meta=meta, computed=True, made_by=recorded))
    return Dataset(name=name, label_names=(), splits=splits, encoder=TrajectoryEncoder())


def recorded(source: Source) -> Walk:
    """The walk of a source."""
    return VizdoomWalk(**source.meta["walk"]).record()


def levels() -> Iterator[tuple[Wad, str]]:
    """The maps: four episodes of nine in the first game, 32 levels in the second."""
    for episode in range(1, 5):
        yield from (("freedoom1", f"E{episode}M{level}") for level in range(1, 10))
    yield from (("freedoom2", f"MAP{level:02d}") for level in range(1, 33))


def walk_seed(name: str) -> int:
    """The seed of a walk, in 63 bits, from its name."""
    return xxhash.xxh3_64_intdigest(f"walks/{name}".encode()) >> 1
