"""The cost of voxelising point clouds compared with other libraries, and of a training step with and without masks.

    python benchmarks/voxels.py [--rounds 3] [--steps 2]

CPU time of one thread, the minimum over rounds in which all take turns. Voxelisation: means of the points in
each voxel and their number, by DiT-3D's rule, of a batch of 16 clouds, against a plain loop, numpy, scipy's binned
statistic and trimesh's voxel indices on one cloud, which all give the same. Model: a training step (forward and
backward) of the recipe fastdit3d-small on one cloud of 2,048 points at 64^3 in patches of 4, with its masks and with
none, and the floating point operations of both, counted by PyTorch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import scipy.stats
import torch
import trimesh
from machine import facts
from rich.console import Console
from rich.table import Table
from turns import least_ms

from maskstream.pipelines.masks import Cues, Draw
from maskstream.pipelines.modalities.points.batch import PointsBatch
from maskstream.pipelines.modalities.points.data import PointsData
from maskstream.pipelines.modalities.points.tokens import VoxelTokens, occupied_tokens, voxelise
from maskstream.train.papers.fastdit3d.evaluate import step_flops
from maskstream.train.papers.fastdit3d.recipe import fastdit3d_small

Floats = npt.NDArray[np.float32]
Means = npt.NDArray[np.float64]
CLOUDS = 16
PACKAGES = ("numpy", "scipy", "trimesh", "torch")


def placed(cloud: Floats, resolution: int) -> npt.NDArray[np.int64]:
    """The voxels of a cloud, by numpy: int64 (N, 3)."""
    centred = cloud - cloud.astype(np.float64).mean(axis=0).astype(np.float32)
    unit = centred / (2 * np.sqrt(np.square(centred).sum(axis=1).max())) + 0.5
    return np.rint(np.clip(unit * resolution, 0, resolution - 1)).astype(np.int64)


def with_loop(cloud: Floats, resolution: int) -> tuple[Means, npt.NDArray[np.int64]]:
    sums, counts = np.zeros((resolution,) * 3 + (3,)), np.zeros((resolution,) * 3, dtype=np.int64)
    for (x, y, z), point in zip(placed(cloud, resolution).tolist(), cloud, strict=True):
        sums[x, y, z] += point
        counts[x, y, z] += 1
    return sums / np.maximum(counts, 1)[..., None], counts


def with_numpy(cloud: Floats, resolution: int) -> tuple[Means, npt.NDArray[np.int64]]:
    flat = np.ravel_multi_index(tuple(placed(cloud, resolution).T), (resolution,) * 3)
    counts = np.bincount(flat, minlength=resolution**3)
    sums = np.stack([np.bincount(flat, cloud[:, axis], resolution**3) for axis in range(3)], axis=1)
    means = sums / np.maximum(counts, 1)[:, None]
    return means.reshape((resolution,) * 3 + (3,)), counts.reshape((resolution,) * 3)


def with_scipy(cloud: Floats, resolution: int) -> tuple[Means, npt.NDArray[np.int64]]:
    edges = [np.arange(resolution + 1) - 0.5] * 3
    found = scipy.stats.binned_statistic_dd(
        placed(cloud, resolution), [*cloud.T, np.ones(len(cloud))], statistic="sum", bins=edges
    )
    counts = found.statistic[3].astype(np.int64)
    return np.moveaxis(found.statistic[:3] / np.maximum(counts, 1), 0, 3), counts


def with_trimesh(cloud: Floats, resolution: int) -> tuple[Means, npt.NDArray[np.int64]]:
    centred = cloud - cloud.astype(np.float64).mean(axis=0).astype(np.float32)
    pitch = 2 * float(np.sqrt(np.square(centred).sum(axis=1).max())) / resolution
    cells = trimesh.voxel.ops.points_to_indices(centred, pitch=pitch, origin=[-pitch * resolution / 2] * 3)
    cells = cells.clip(0, resolution - 1)
    sums, counts = np.zeros((resolution,) * 3 + (3,)), np.zeros((resolution,) * 3, dtype=np.int64)
    np.add.at(counts, tuple(cells.T), 1)
    np.add.at(sums, tuple(cells.T), cloud)
    return sums / np.maximum(counts, 1)[..., None], counts


def voxelisation(rounds: int) -> Table:
    """Ours on a batch against the others cloud by cloud, per cloud."""
    table = Table(title="CPU ms of a cloud in voxels; behind it, how many times ours that is")
    others = {"numpy": with_numpy, "trimesh": with_trimesh, "scipy": with_scipy, "plain loop": with_loop}
    for name in ("points", "voxels", "ours", *others):
        table.add_column(name, justify="right")
    for n, resolution in ((2048, 32), (2048, 64), (15_000, 64), (15_000, 128)):
        points = np.random.default_rng(0).normal(size=(CLOUDS, n, 3)).astype(np.float32)
        batch = torch.from_numpy(points)
        check(voxelise(batch, resolution).counts.numpy(), points, resolution, list(others.values()))
        works: dict[str, Callable[[], object]] = {"ours": lambda b=batch, r=resolution: voxelise(b, r)}  # type: ignore[misc]
        works |= {k: lambda f=f, p=points, r=resolution: f(p[0], r) for k, f in others.items()}  # type: ignore[misc]
        taken = least_ms(works, rounds)
        taken["ours"] /= CLOUDS
        beside = [f"{taken[name]:.2f} ({taken[name] / taken['ours']:.1f}x)" for name in others]
        table.add_row(f"{n:,}", f"{resolution}^3", f"{taken['ours']:.2f}", *beside)
    return table


def check(
    ours: npt.NDArray[np.int64],
    points: Floats,
    resolution: int,
    others: list[Callable[..., tuple[Means, npt.NDArray[np.int64]]]],
) -> None:
    """Checks that all count alike; a point within rounding of a voxel's border may fall on either side."""
    for other in others:
        _, counts = other(points[0], resolution)
        assert np.abs(counts - ours[0]).sum() <= 4, other.__name__


def step_batch(data: PointsData, *, masked: bool) -> PointsBatch:
    """One cloud on a sphere, its noise at the middle time, and a mask or one that hides nothing."""
    tokens, noise_of = data.tokens, data.noise
    if not isinstance(tokens, VoxelTokens) or data.mask is None or noise_of is None:
        raise ValueError(f"a step needs voxels, a mask and noise, got {data}")
    generator = torch.Generator().manual_seed(0)
    points, noise = torch.randn(2, 1, data.select.points, 3, generator=generator)
    points = points / points.norm(dim=2, keepdim=True)
    time_ = torch.full((1,), noise_of.times // 2)
    seen = noise_of.noised(points, noise, time_)
    cues = Cues(occupied=occupied_tokens(seen, tokens.resolution, tokens.patch)[0].numpy())
    mask = data.mask.draw(tokens.grid, [Draw(rng=np.random.default_rng(0), cues=cues)])
    if not masked:
        mask = replace(mask, visible=torch.arange(tokens.grid.size)[None])
    label = torch.zeros(1, dtype=torch.int64)
    return PointsBatch(points=points, noise=noise, time=time_, mask=mask, label=label, key=[""])


def model_step(steps: int) -> Table:
    """A training step with masks and without."""
    recipe = fastdit3d_small()
    if not isinstance(recipe.data, PointsData) or not isinstance(recipe.data.tokens, VoxelTokens):
        raise ValueError(f"the recipe must have voxel tokens, got {recipe.name}")
    data = recipe.data
    model = recipe.build()
    table = Table(title=f"fastdit3d-small, one cloud, {recipe.data.tokens.resolution}^3 voxels")
    for name in ("mask", "visible", "CPU ms", "of unmasked", "GFLOP", "of unmasked"):
        table.add_column(name, justify="right")
    batches = {name: step_batch(data, masked=name == "95 % / 99 %") for name in ("none", "95 % / 99 %")}

    def work(batch: PointsBatch) -> Callable[[], object]:
        return lambda: model(batch).loss().backward()

    works = {name: work(batch) for name, batch in batches.items()}
    taken = least_ms(works, steps)
    flops = {name: step_flops(model, i) / 1e9 for name, i in batches.items()}
    for name, i in batches.items():
        visible = i.mask.visible.shape[1] if i.mask else 0
        of_time, of_flops = taken[name] / taken["none"], flops[name] / flops["none"]
        table.add_row(
            name, str(visible), f"{taken[name]:.0f}", f"{of_time:.1%}", f"{flops[name]:.1f}", f"{of_flops:.1%}"
        )
    return table


def main() -> None:
    """Prints both tables and what they depend on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds in which all take turns")
    parser.add_argument("--steps", type=int, default=2, help="rounds of training steps with and without masks")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=120)
    console.print(voxelisation(arguments.rounds))
    console.print(model_step(arguments.steps))
    console.print(facts(PACKAGES))


if __name__ == "__main__":
    main()
