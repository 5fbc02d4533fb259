"""What can be wrong between the members of a mesh sample and the manifest's numbers of nodes, cells and steps."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np

from ..errors import ShardError
from ..format.manifest import Manifest
from ..media.mesh_members import read_mesh

_SURFACE, _SIMULATION = ("vertices", "faces"), ("positions", "cells")


def mesh_problems(manifest: Manifest, row: int, body: bytes, decode: bool) -> Iterator[str]:
    """What is wrong with the `mesh.npz` of sample `row`; coordinates are looked at only if `decode` asks for it."""
    try:
        arrays = read_mesh(body)
    except ShardError as error:
        yield str(error)
        return
    names = _SIMULATION if _steps(manifest, row) else _SURFACE
    if missing := [name for name in names if name not in arrays]:
        yield f"has no array {missing[0]!r}, only {', '.join(arrays)}"
        return
    nodes, cells = (arrays[name] for name in names)
    n_nodes, n_cells = (int(manifest.facts[name][row]) for name in ("n_nodes", "n_cells"))
    if (len(nodes), len(cells)) != (n_nodes, n_cells):
        yield f"has {len(nodes)} nodes and {len(cells)} cells, the manifest says {n_nodes} and {n_cells}"
    elif cells.min() < 0 or cells.max() >= n_nodes:
        yield f"its cells name the nodes {cells.min()} to {cells.max()} of {n_nodes}"
    if decode and not np.isfinite(nodes).all():
        yield "a coordinate is not finite"


def fields_problems(manifest: Manifest, row: int, body: bytes, decode: bool) -> Iterator[str]:
    """What is wrong with the `fields.npy` of sample `row`; numbers are looked at only if `decode` asks for it."""
    try:
        fields = np.lib.format.read_array(io.BytesIO(body), allow_pickle=False)
    except (ValueError, EOFError) as error:
        yield f"cannot be read ({error})"
        return
    wanted = (_steps(manifest, row), int(manifest.facts["n_nodes"][row]))
    if fields.dtype != np.float32 or fields.ndim != 3 or fields.shape[:2] != wanted:
        yield f"is {fields.dtype} {fields.shape}, the manifest says float32 of {wanted[0]} steps and {wanted[1]} nodes"
    elif decode and not np.isfinite(fields).all():
        yield "a number is not finite"


def _steps(manifest: Manifest, row: int) -> int:
    return int(manifest.facts["n_steps"][row]) if "n_steps" in manifest.facts else 0
