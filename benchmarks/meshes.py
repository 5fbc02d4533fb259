"""The cost of building mesh graphs, making batches and training, compared with other libraries.

    python benchmarks/meshes.py [--rounds 7]

CPU time of one thread, the minimum over rounds in which all take turns. Graphs: both directions of every side of
a triangle with relative positions and lengths, of spheres whose numbering is shuffled, against trimesh's unique edges,
scipy's sparse adjacency, and numpy's `unique` over rows, with the same features by numpy. Network: a training step of
the recipe meshmask-small on a batch of two flows about a cylinder of 940 nodes, with and without hidden nodes, and the
share of multiply-adds that hiding them saves, counted by PyTorch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
import trimesh
from machine import facts
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode
from turns import least_ms

from maskstream.pipelines import masks
from maskstream.pipelines.masks import TokenGrid
from maskstream.pipelines.modalities.mesh.batch import MeshBatch, MeshView, build_graph, mesh_batch
from maskstream.pipelines.modalities.mesh.data import MeshData
from maskstream.samples.mesh.cylinder import CylinderFlow, channel_mesh
from maskstream.train.core.recipe import Recipe
from maskstream.train.papers.meshmask.recipe import meshmask_small, next_step

Edges = npt.NDArray[np.int64]
Places = npt.NDArray[np.float32]
Cells = npt.NDArray[np.int32]
RATIOS = (0.2, 0.4, 0.6, 0.8)
PACKAGES = ("numpy", "numba", "scipy", "trimesh", "torch")


def with_trimesh(places: Places, cells: Cells) -> Edges:
    sides = trimesh.Trimesh(places, cells, process=False).edges_unique
    return np.concatenate([sides, sides[:, ::-1]]).T


def with_scipy(places: Places, cells: Cells) -> Edges:
    rows = np.concatenate([cells[:, i] for i in (0, 1, 2, 1, 2, 0)])
    columns = np.concatenate([cells[:, i] for i in (1, 2, 0, 0, 1, 2)])
    joined = scipy.sparse.csr_matrix((np.ones(len(rows), bool), (rows, columns)), shape=2 * (len(places),)).tocoo()
    return np.stack([joined.row, joined.col]).astype(np.int64)


def with_numpy(places: Places, cells: Cells) -> Edges:
    sides = np.sort(np.concatenate([cells[:, [0, 1]], cells[:, [1, 2]], cells[:, [2, 0]]]), axis=1)
    once = np.unique(sides, axis=0).astype(np.int64)
    return np.concatenate([once, once[:, ::-1]]).T


def featured(find: Callable[[Places, Cells], Edges], places: Places, cells: Cells) -> tuple[Edges, Places]:
    """Another library's edges, with the features that maskstream computes."""
    edges = find(places, cells)
    difference = places[edges[0]] - places[edges[1]]
    return edges, np.concatenate([difference, np.linalg.norm(difference, axis=1, keepdims=True)], axis=1)


def sphere(subdivisions: int) -> tuple[Places, Cells]:
    """A sphere of triangles in a random order and numbering."""
    rng = np.random.default_rng(0)
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions)
    number = rng.permutation(len(mesh.vertices))
    places = np.empty((len(number), 3), dtype=np.float32)
    places[number] = mesh.vertices
    return places, number[mesh.faces][rng.permutation(len(mesh.faces))].astype(np.int32)


def graphs(rounds: int) -> Table:
    """Graph building against the others."""
    table = Table(title="CPU ms of a graph with its features; behind it, how many times ours that is")
    others = {"trimesh": with_trimesh, "scipy": with_scipy, "numpy": with_numpy}
    for name in ("nodes", "edges", "ours", *others):
        table.add_column(name, justify="right")
    for subdivisions in (3, 5, 8):
        places, cells = sphere(subdivisions)
        graph = build_graph(places, cells)
        for find in others.values():
            assert len(np.unique(find(places, cells), axis=1).T) == graph.edges.shape[1]
        works: dict[str, Callable[[], object]] = {"ours": lambda p=places, c=cells: build_graph(p, c)}  # type: ignore[misc]
        works |= {n: lambda f=f, p=places, c=cells: featured(f, p, c) for n, f in others.items()}  # type: ignore[misc]
        taken = least_ms(works, rounds)
        cells_of = [f"{taken[name]:.2f} ({taken[name] / taken['ours']:.1f}x)" for name in others]
        table.add_row(f"{len(places):,}", f"{graph.edges.shape[1]:,}", f"{taken['ours']:.2f}", *cells_of)
    return table


def flows(ratio: float | None) -> MeshBatch:
    """Two flows about a cylinder with random fields, with a mask or a next step."""
    flow = CylinderFlow()
    rng = np.random.default_rng(0)
    nodes, cells = channel_mesh(
        (flow.x_m, flow.y_m), flow.radius_m, length=flow.length_m, height=flow.height_m, spacing=flow.spacing_m
    )
    places, n = nodes.astype(np.float32), len(nodes)
    grid = TokenGrid(axes=("node",), shape=(n,), patch=(1,))
    views = [
        MeshView(
            positions=places,
            kinds=np.zeros(n, dtype=np.int64),
            graph=build_graph(places, cells.astype(np.int32), flow.spacing_m),
            state=rng.normal(size=(n, 3)).astype(np.float32),
            next_state=rng.normal(size=(n, 3)).astype(np.float32),
            counts=np.ones(n, dtype=np.float32),
            mask=None if ratio is None else masks.MeshNodes(ratio=ratio).draw(grid, [rng]),
            step=0,
        )
        for _ in range(2)
    ]
    return mesh_batch(views, label=[-1, -1], key=["a", "b"], change=np.ones(3, dtype=np.float32))


def step_of(recipe: Recipe[MeshBatch], batch: MeshBatch) -> tuple[Callable[[], None], float]:
    """Forward and backward, and its multiply-adds in thousand millions."""
    model = recipe.build()

    def work() -> None:
        model(batch).loss().backward()
        model.zero_grad()

    with FlopCounterMode(display=False) as counter:
        work()
    return work, counter.get_total_flops() / 2e9


def network(rounds: int) -> Table:
    """A training step with and without hidden nodes."""
    table = Table(title="meshmask-small: a step of two flows of 940 nodes, CPU and float32")
    for name in ("task", "hidden", "CPU ms", "/ nothing hidden", "G multiply-adds", "/ nothing hidden"):
        table.add_column(name, justify="right")
    recipe = meshmask_small()
    made = {("next step", "0 %"): step_of(next_step(recipe), flows(None))}
    for ratio in RATIOS:
        chosen = replace(recipe, data=MeshData(mask=masks.MeshNodes(ratio=ratio)))
        made["masked", f"{ratio:.0%}"] = step_of(chosen, flows(ratio))
    taken = least_ms({f"{task} {hidden}": work for (task, hidden), (work, _) in made.items()}, rounds)
    whole_ms, whole_flops = taken["next step 0 %"], made["next step", "0 %"][1]
    for (task, hidden), (_, flops) in made.items():
        ms = taken[f"{task} {hidden}"]
        table.add_row(task, hidden, f"{ms:.0f}", f"{ms / whole_ms:.2f}", f"{flops:.1f}", f"{flops / whole_flops:.2f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="rounds in which all take turns")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=124, highlight=False)
    console.print(graphs(arguments.rounds))
    console.print(network(max(arguments.rounds // 2, 2)))
    for name, value in facts(PACKAGES).items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        console.print(f"  {name}: {text}", soft_wrap=True)


if __name__ == "__main__":
    main()
