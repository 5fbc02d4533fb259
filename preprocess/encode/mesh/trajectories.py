"""Reads trajectories from HDF5, one group each, in the layout of the published MeshGraphNets conversions.

A group holds `cells` int (C, 3 or 4), `mesh_pos` float (V, 2 or 3), `node_type` int (V, 1) and one dataset per field,
float (T, V, d). Static data may have a leading axis of 1 or T steps, as in the published files; if its first and last
step differ, the mesh moves, and the trajectory is rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ....shards.errors import DatasetError
from ..reject import RejectError
from ..source_file import check_source_file
from .simulation import Simulation


def h5py_module() -> Any:
    """The module h5py. Raises DatasetError if it is not installed."""
    try:
        import h5py
    except ImportError as error:
        raise DatasetError("HDF5 trajectories are read with h5py: pip install 'maskstream[meshes]'") from error
    return h5py


def read_trajectory(path: Path, name: str, fields: Sequence[str], widths: Sequence[int], dt_s: float) -> Simulation:
    """The group `name` of the file; its datasets `fields`, with `widths` channels each, are concatenated.

    Raises RejectError if the group cannot be read or is no simulation on a static mesh.
    """
    h5py = h5py_module()
    check_source_file(path)
    try:
        with h5py.File(path, "r") as file:
            group = _own_group(file, name)
            if missing := [key for key in ("cells", "mesh_pos", "node_type", *fields) if key not in group]:
                raise RejectError("decode", f"the group {name!r} has no dataset {missing[0]!r}, only {sorted(group)}")
            cells, positions, node_type = (_static(group, key) for key in ("cells", "mesh_pos", "node_type"))
            values = [np.asarray(group[key][()]) for key in fields]
    except (OSError, KeyError) as error:
        raise RejectError("open", f"cannot be read ({error})") from error
    steps = {value.shape[:-1] for value in values if value.ndim == 3}
    if len(steps) != 1 or [value.shape[-1] for value in values] != list(widths):
        shapes = ", ".join(f"{key} {value.shape}" for key, value in zip(fields, values, strict=True))
        raise RejectError("decode", f"fields have the shapes {shapes}; expected (steps, nodes, d) with d from {widths}")
    with np.errstate(over="ignore"):
        return Simulation(
            positions=positions.astype(np.float32),
            cells=cells.astype(np.int32),
            node_type=node_type.reshape(-1).astype(np.int32),
            fields=np.concatenate(values, axis=2).astype(np.float32),
            field_names=channel_names(fields, widths),
            dt_s=dt_s,
        )


def _own_group(file: Any, name: str) -> Any:
    """The group `name`. Raises RejectError if it, or a dataset in it, takes its contents from another file.

    HDF5 follows external links, external storage and virtual datasets to any path that the file names.
    """
    h5py = h5py_module()
    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise RejectError("open", f"the group {name!r} is a link; only data in the file itself are read")
    group = file[name]
    if not isinstance(group, h5py.Group):
        raise RejectError("decode", f"{name!r} is no group but a {type(group).__name__}")
    for key in group:
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise RejectError("open", f"{name}/{key} is a link; only data in the file itself are read")
        dataset = group[key]
        if isinstance(dataset, h5py.Dataset) and (dataset.external or dataset.is_virtual):
            raise RejectError("open", f"{name}/{key} lies in other files; only data in the file itself are read")
    return group


def channel_names(fields: Sequence[str], widths: Sequence[int]) -> tuple[str, ...]:
    """The channel names: the field's name, with _x, _y, _z or a number appended if it has several channels."""
    names: list[str] = []
    for field, width in zip(fields, widths, strict=True):
        ends = ["_x", "_y", "_z"] if width in (2, 3) else [f"_{i}" for i in range(width)]
        names += [field] if width == 1 else [field + end for end in ends[:width]]
    return tuple(names)


def _static(group: Any, key: str) -> npt.NDArray[Any]:
    """A static dataset without its axis of steps. Raises RejectError if it changes over time."""
    dataset = group[key]
    if dataset.ndim != 3:
        return np.asarray(dataset[()])
    first = np.asarray(dataset[0])
    if not np.array_equal(first, np.asarray(dataset[-1])):
        raise RejectError("decode", f"{key} changes over time; only static meshes are supported")
    return first
