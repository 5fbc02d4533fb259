"""The kind `mesh`: the arrays of a mesh as uncompressed NPZ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.shards.media.mesh_members import MeshError, mesh_bytes, read_mesh

from .member import Kind, Member


def mesh_member(facts: dict[str, int], **arrays: npt.NDArray[Any]) -> Member:
    """The arrays of a mesh as a member."""
    return Member(kind=MESH.name, data=mesh_bytes(**arrays), facts=dict(facts))


def mesh_problems(member: Member) -> Iterator[str]:
    """Compare the arrays with each other and with the facts."""
    try:
        nodes, cells, *_ = read_mesh(member.data).values()
    except MeshError as error:
        yield str(error)
        return
    n_nodes, n_cells = (int(member.facts[name]) for name in ("n_nodes", "n_cells"))
    if (len(nodes), len(cells)) != (n_nodes, n_cells):
        yield f"has {len(nodes)} nodes and {len(cells)} cells, but the manifest says {n_nodes} and {n_cells}"


def mesh_decode_problems(member: Member) -> Iterator[str]:
    """Find coordinates that are not finite."""
    try:
        nodes, *_ = read_mesh(member.data).values()
    except MeshError:
        return  # mesh_problems reports it
    if not np.isfinite(nodes).all():
        yield "a coordinate is not finite"


MESH = Kind(name="mesh", facts={"n_nodes": int, "n_cells": int}, check=mesh_problems, decode=mesh_decode_problems)
