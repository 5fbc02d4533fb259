"""Trajectories in HDF5: one group each, as the published conversions of the MeshGraphNets data have them.

A group holds `cells` int (C, 3 or 4), `mesh_pos` float (V, 2 or 3), `node_type` int (V, 1) and one dataset per field,
float (T, V, d). What does not change may have a leading axis of 1 or T steps, as in the published files; where its
first and last step differ, the mesh moves and the trajectory is rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ....shards.errors import DatasetError
from ..reject import RejectError
from .simulation import Simulation


def h5py_module() -> Any:
    """The module h5py; DatasetError where it is not installed."""
    try:
        import h5py
    except ImportError as error:
        raise DatasetError("HDF5 trajectories are read with h5py: pip install 'maskstream[meshes]'") from error
    return h5py


def read_trajectory(path: Path, name: str, fields: Sequence[str], widths: Sequence[int], dt_s: float) -> Simulation:
    """The group `name` of the file, with the channels of its datasets `fields`, of `widths` channels each, one after
    the other. RejectError where it cannot be read or is no simulation on a resting mesh.
    """
    h5py = h5py_module()
    try:
        with h5py.File(path, "r") as file:
            group = file[name]
            if missing := [key for key in ("cells", "mesh_pos", "node_type", *fields) if key not in group]:
                raise RejectError("decode", f"the group {name!r} has no dataset {missing[0]!r}, only {sorted(group)}")
            cells, positions, node_type = (_static(group, key) for key in ("cells", "mesh_pos", "node_type"))
            values = [np.asarray(group[key][()]) for key in fields]
    except (OSError, KeyError) as error:
        raise RejectError("open", f"cannot be read ({error})") from error
    steps = {value.shape[:-1] for value in values if value.ndim == 3}
    if len(steps) != 1 or [value.shape[-1] for value in values] != list(widths):
        shapes = ", ".join(f"{key} {value.shape}" for key, value in zip(fields, values, strict=True))
        raise RejectError("decode", f"fields have the shapes {shapes}; expected (steps, nodes, d) with d of {widths}")
    with np.errstate(over="ignore"):
        return Simulation(
            positions=positions.astype(np.float32),
            cells=cells.astype(np.int32),
            node_type=node_type.reshape(-1).astype(np.int32),
            fields=np.concatenate(values, axis=2).astype(np.float32),
            field_names=channel_names(fields, widths),
            dt_s=dt_s,
        )


def channel_names(fields: Sequence[str], widths: Sequence[int]) -> tuple[str, ...]:
    """Names of the channels: a field's own where it has one channel, else with _x, _y, _z or the channel's number."""
    names: list[str] = []
    for field, width in zip(fields, widths, strict=True):
        ends = ["_x", "_y", "_z"] if width in (2, 3) else [f"_{i}" for i in range(width)]
        names += [field] if width == 1 else [field + end for end in ends[:width]]
    return tuple(names)


def _static(group: Any, key: str) -> npt.NDArray[Any]:
    """A dataset that does not change over time, without its axis of steps."""
    dataset = group[key]
    if dataset.ndim != 3:
        return np.asarray(dataset[()])
    first = np.asarray(dataset[0])
    if not np.array_equal(first, np.asarray(dataset[-1])):
        raise RejectError("decode", f"{key} changes over time; only meshes that rest are taken")
    return first
