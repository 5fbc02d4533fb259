"""A simulation on a static mesh, and its checks. Node types are those of MeshGraphNets (Pfaff et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.preprocess.source import RejectError

NODE_TYPES = ("normal", "obstacle", "airfoil", "handle", "inflow", "outflow", "wall")
"""Names of the node types 0 to 6."""
NORMAL, INFLOW, OUTFLOW, WALL = 0, 4, 5, 6
N_NODE_TYPES = 9
"""The width of the one-hot node types in models; a file may use the types 0 to 8."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulation:
    """Fields over time on a static mesh.

    positions: float32 (V, 2 or 3). cells: int32 (C, 3) triangles or (C, 4) tetrahedra. node_type: int32 (V,). fields:
    float32 (T, V, D), T >= 2, all finite. field_names: names of the D channels. dt_s: seconds between two steps. Raises
    RejectError for anything else.
    """

    positions: npt.NDArray[np.float32]
    cells: npt.NDArray[np.int32]
    node_type: npt.NDArray[np.int32]
    fields: npt.NDArray[np.float32]
    field_names: tuple[str, ...]
    dt_s: float

    def __post_init__(self) -> None:
        _check_mesh(self.positions, self.cells, self.node_type)
        _check_fields(self.fields, len(self.positions), self.field_names)


def _check_mesh(
    positions: npt.NDArray[np.float32], cells: npt.NDArray[np.int32], node_type: npt.NDArray[np.int32]
) -> None:
    """Raise RejectError unless positions, node types and cells are consistent."""
    if positions.ndim != 2 or positions.shape[1] not in (2, 3):
        raise RejectError("decode", f"positions have the shape {positions.shape}, expected (nodes, 2) or (nodes, 3)")
    if cells.ndim != 2 or cells.shape[1] not in (3, 4) or not len(cells):
        raise RejectError("decode", f"cells have the shape {cells.shape}, expected (cells, 3) or (cells, 4), not empty")
    if cells.min() < 0 or cells.max() >= len(positions):
        raise RejectError(
            "decode", f"cells name the nodes {cells.min()} to {cells.max()}, but there are {len(positions)} nodes"
        )
    if bad := int((~np.isfinite(positions).all(axis=1)).sum()):
        raise RejectError("decode", f"{bad} of {len(positions)} nodes have a position that is not finite")
    if node_type.shape != (len(positions),):
        raise RejectError("decode", f"node types have the shape {node_type.shape}, expected ({len(positions)},)")
    if node_type.min() < 0 or node_type.max() >= N_NODE_TYPES:
        raise RejectError(
            "decode", f"node types are {node_type.min()} to {node_type.max()}; legal are 0 to {N_NODE_TYPES - 1}"
        )


def _check_fields(fields: npt.NDArray[np.float32], n_nodes: int, names: tuple[str, ...]) -> None:
    """Raise RejectError unless the fields have two or more steps of finite numbers at every node."""
    if fields.ndim != 3 or fields.shape[1:] != (n_nodes, len(names)):
        raise RejectError("decode", f"fields have the shape {fields.shape}, expected (steps, {n_nodes}, {len(names)})")
    if len(fields) < 2:
        raise RejectError("decode", f"has {len(fields)} steps; at least 2 are needed to predict a next step")
    finite = np.isfinite(fields).all(axis=(1, 2))
    if not finite.all():
        raise RejectError("decode", f"diverged: not finite from step {int(np.argmin(finite))} of {len(fields)} on")
