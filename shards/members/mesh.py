"""The kind `mesh`: the arrays of a mesh as uncompressed NPZ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ShardError
from ..media.mesh_members import mesh_bytes, read_mesh
from .member import Kind, Member

_SURFACE, _SIMULATION = ("vertices", "faces"), ("positions", "cells")


def mesh_member(facts: dict[str, int], **arrays: npt.NDArray[Any]) -> Member:
    """The arrays of a mesh as a member."""
    return Member(kind=MESH.name, data=mesh_bytes(**arrays), facts=dict(facts))


def mesh_problems(member: Member) -> Iterator[str]:
    """Compare the arrays with each other and with the facts."""
    try:
        arrays = read_mesh(member.data)
    except ShardError as error:
        yield str(error)
        return
    names = _SURFACE if "faces" in arrays else _SIMULATION
    if missing := [name for name in names if name not in arrays]:
        yield f"has no array {missing[0]!r}, only {', '.join(arrays)}"
        return
    nodes, cells = (arrays[name] for name in names)
    n_nodes, n_cells = (int(member.facts[name]) for name in ("n_nodes", "n_cells"))
    if (len(nodes), len(cells)) != (n_nodes, n_cells):
        yield f"has {len(nodes)} nodes and {len(cells)} cells, but the manifest says {n_nodes} and {n_cells}"
    elif cells.min() < 0 or cells.max() >= n_nodes:
        yield f"its cells refer to the nodes {cells.min()} to {cells.max()}, but it has {n_nodes}"


def mesh_decode_problems(member: Member) -> Iterator[str]:
    """Find coordinates that are not finite."""
    try:
        arrays = read_mesh(member.data)
    except ShardError:
        return  # mesh_problems reports it
    nodes = arrays.get("vertices", arrays.get("positions"))
    if nodes is not None and not np.isfinite(nodes).all():
        yield "a coordinate is not finite"


MESH = Kind(name="mesh", facts={"n_nodes": int, "n_cells": int}, check=mesh_problems, decode=mesh_decode_problems)
