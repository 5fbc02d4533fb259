"""The encoder of meshes: surfaces from files, simulations from TFRecord, HDF5 or a solver.

Trajectories of MeshGraphNets are read from TFRecord as published or from HDF5 conversions. A trajectory has `cells` int
(C, 3 or 4), `mesh_pos` (in HDF5 also `pos`) float (V, 2 or 3), `node_type` int (V, 1) and each field, float (T, V, d);
in HDF5 it is a group with a dataset for each, in TFRecord an Example with their bytes. Static data may have a leading
axis of 1 or T steps, as in the published files; if its first and last step differ, the mesh changes, and the trajectory
is rejected. For moving bodies, `mesh_pos` is the shape at rest and `world_pos` a field. Node types are defined by
MeshGraphNets (Pfaff et al., 2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from maskstream.preprocess.encode.encoder import Encoded, made_of
from maskstream.preprocess.encode.limits import check_source_file
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.arrays import Float32s, Int32s
from maskstream.shards.config import Config
from maskstream.shards.errors import DatasetError
from maskstream.shards.media.mesh_members import FIELDS, MESH
from maskstream.shards.members.arrays import array_member, make_mesh_member

from .surfaces import Surface, read_surface
from .tfrecord import read_example

NORMAL, INFLOW, OUTFLOW, WALL = 0, 4, 5, 6
"""Among the node types normal, obstacle, airfoil, handle, inflow, outflow and wall."""
N_NODE_TYPES = 9
"""Width of the one-hot node types in models; a file may use the types 0 to 8."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulation:
    """Fields over time on a static mesh.

    Attributes:
        positions: float32 (V, 2 or 3).
        cells: int32 (C, 3) triangles or (C, 4) tetrahedra.
        node_type: int32 (V,).
        fields: float32 (T, V, D), T >= 2, all finite.
        field_names: Names of the D channels.
        dt_s: Seconds between two steps.

    Raises:
        RejectError: A value does not have this form.
    """

    positions: Float32s
    cells: Int32s
    node_type: Int32s
    fields: Float32s
    field_names: tuple[str, ...]
    dt_s: float

    def __post_init__(self) -> None:
        _check_mesh(self.positions, self.cells, self.node_type)
        _check_fields(self.fields, len(self.positions), self.field_names)


def _check_mesh(positions: Float32s, cells: Int32s, node_type: Int32s) -> None:
    """Raise RejectError unless positions, node types and cells are consistent."""
    if positions.ndim != 2 or positions.shape[1] not in (2, 3):
        raise RejectError("decode", f"positions have the shape {positions.shape}, expected (nodes, 2) or (nodes, 3)")
    if cells.ndim != 2 or cells.shape[1] not in (3, 4) or not len(cells):
        raise RejectError("decode", f"cells have the shape {cells.shape}, expected (cells, 3) or (cells, 4), not empty")
    if cells.min() < 0 or cells.max() >= len(positions):
        raise RejectError(
            "decode", f"cells refer to nodes {cells.min()} to {cells.max()}, but there are {len(positions)} nodes"
        )
    if bad := int((~np.isfinite(positions).all(axis=1)).sum()):
        raise RejectError("decode", f"{bad} of {len(positions)} nodes have a position that is not finite")
    if node_type.shape != (len(positions),):
        raise RejectError("decode", f"node types have the shape {node_type.shape}, expected ({len(positions)},)")
    if node_type.min() < 0 or node_type.max() >= N_NODE_TYPES:
        raise RejectError(
            "decode", f"node types are {node_type.min()} to {node_type.max()}; expected 0 to {N_NODE_TYPES - 1}"
        )


def _check_fields(fields: Float32s, n_nodes: int, names: tuple[str, ...]) -> None:
    """Raise RejectError unless the fields have two or more steps of finite numbers at every node."""
    if fields.ndim != 3 or fields.shape[1:] != (n_nodes, len(names)):
        raise RejectError("decode", f"fields have the shape {fields.shape}, expected (steps, {n_nodes}, {len(names)})")
    if len(fields) < 2:
        raise RejectError("decode", f"has {len(fields)} steps; at least 2 are needed to predict a next step")
    finite = np.isfinite(fields).all(axis=(1, 2))
    if not finite.all():
        raise RejectError("decode", f"diverged: not finite from step {int(np.argmin(finite))} of {len(fields)} on")


_MAX_COMPRESSION = 1100
"""Largest compression ratio of deflate. A file that declares more does not contain it: HDF5 fills it with a fill
value.
"""
_FEW_BYTES = 1 << 26


def import_h5py() -> Any:
    """Return the module h5py. Raise DatasetError if it is not installed."""
    try:
        import h5py
    except ImportError as error:
        raise DatasetError("HDF5 trajectories are read with h5py: pip install 'maskstream[meshes]'") from error
    return h5py


def read_trajectory(path: Path, name: str, fields: Sequence[str], widths: Sequence[int], dt_s: float) -> Simulation:
    """Read a trajectory from an HDF5 file.

    Args:
        path: HDF5 file.
        name: Name of the group.
        fields: Datasets to concatenate.
        widths: Number of channels of each.
        dt_s: Seconds between two steps.

    Raises:
        RejectError: The group cannot be read, or is not a simulation on a static mesh.
        DatasetError: h5py is not installed.
    """
    h5py = import_h5py()
    check_source_file(path)
    try:
        with h5py.File(path, "r") as file:
            group = _find_own_group(file, name)
            places = "pos" if "pos" in group and "mesh_pos" not in group else "mesh_pos"
            if missing := [key for key in ("cells", places, "node_type", *fields) if key not in group]:
                raise RejectError("decode", f"the group {name!r} has no dataset {missing[0]!r}, only {sorted(group)}")
            cells, positions, node_type = (_read_static(_held(group, key)) for key in ("cells", places, "node_type"))
            values = [np.asarray(_held(group, key)[()]) for key in fields]
    except (RejectError, MemoryError):
        raise
    except Exception as error:  # h5py raises many types of errors for damaged files
        raise RejectError("open", f"cannot be read as HDF5 ({type(error).__name__}: {error})") from error
    return _check_simulation(cells, positions, node_type, values, fields, widths, dt_s)


def read_record(
    path: Path, span: tuple[int, int], corners: int, fields: Sequence[str], widths: Sequence[int], dt_s: float
) -> Simulation:
    """Read a trajectory from a TFRecord file (see `tfrecord.py`).

    Numbers are little-endian int32 (cells, node_type) and float32, as meta.json of all published sets declares.

    Args:
        path: TFRecord file.
        span: First byte and end of the record.
        corners: Number of corners of a cell.
        fields: Features to concatenate.
        widths: Number of channels of each.
        dt_s: Seconds between two steps.

    Raises:
        RejectError: The record is damaged, or is not a simulation on a static mesh.
        OSError: The file cannot be read.
    """
    found = read_example(path, span)
    if missing := [key for key in ("cells", "mesh_pos", "node_type", *fields) if key not in found]:
        raise RejectError("decode", f"the record has no feature {missing[0]!r}, only {sorted(found)}")
    try:
        node_type = np.frombuffer(found["node_type"], "<i4")
        n_nodes = len(node_type)
        cells = np.frombuffer(found["cells"], "<i4").reshape(-1, corners)
        positions = np.frombuffer(found["mesh_pos"], "<f4").reshape(n_nodes, -1)
        values = [
            np.frombuffer(found[key], "<f4").reshape(-1, n_nodes, width)
            for key, width in zip(fields, widths, strict=True)
        ]
    except (ValueError, ZeroDivisionError) as error:
        raise RejectError("decode", f"the sizes of the record's features do not fit together ({error})") from error
    return _check_simulation(cells, positions, node_type, values, fields, widths, dt_s)


def _check_simulation(
    cells: npt.NDArray[Any],
    positions: npt.NDArray[Any],
    node_type: npt.NDArray[Any],
    values: Sequence[npt.NDArray[Any]],
    fields: Sequence[str],
    widths: Sequence[int],
    dt_s: float,
) -> Simulation:
    """Build the simulation from these arrays. Raise RejectError if they are inconsistent."""
    steps = {value.shape[:-1] for value in values if value.ndim == 3}
    if len(steps) != 1 or [value.shape[-1] for value in values] != list(widths):
        shapes = ", ".join(f"{key} {value.shape}" for key, value in zip(fields, values, strict=True))
        raise RejectError("decode", f"fields have the shapes {shapes}; expected (steps, nodes, d) with d from {widths}")
    with np.errstate(over="ignore"):
        return Simulation(
            positions=positions.astype(np.float32),
            cells=_whole("cells", cells),
            node_type=_whole("node types", node_type).reshape(-1),
            fields=np.concatenate(values, axis=2).astype(np.float32),
            field_names=name_channels(fields, widths),
            dt_s=dt_s,
        )


def _whole(what: str, values: npt.NDArray[Any]) -> Int32s:
    """Convert the values to int32. Raise RejectError if one changes."""
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int32)
    if (changed := whole != values).any():
        raise RejectError("decode", f"{what} have the value {values[changed][0]}, which does not fit int32")
    return whole


def _find_own_group(file: Any, name: str) -> Any:
    """Return the group `name`. Raise RejectError if it, or a dataset in it, refers to another file.

    HDF5 follows external links, external storage and virtual datasets to any path that the file names.
    """
    h5py = import_h5py()
    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise RejectError("open", f"the group {name!r} is a link; only data in the file itself can be read")
    group = file[name]
    if not isinstance(group, h5py.Group):
        raise RejectError("decode", f"{name!r} is a {type(group).__name__}, not a group")
    for key in group:
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise RejectError("open", f"{name}/{key} is a link; only data in the file itself can be read")
        dataset = group[key]
        if isinstance(dataset, h5py.Dataset) and (dataset.external or dataset.is_virtual):
            raise RejectError("open", f"{name}/{key} lies in other files; only data in the file itself can be read")
    return group


def name_channels(fields: Sequence[str], widths: Sequence[int]) -> tuple[str, ...]:
    """Return the channel names: the field's name, with _x, _y, _z or a number appended if it has several channels.

    Args:
        fields: Names of the fields.
        widths: Number of channels of each.
    """
    names: list[str] = []
    for field, width in zip(fields, widths, strict=True):
        ends = ["_x", "_y", "_z"] if width in (2, 3) else [f"_{i}" for i in range(width)]
        names += [field] if width == 1 else [field + end for end in ends[:width]]
    return tuple(names)


def _held(group: Any, key: str) -> Any:
    """Return a numeric dataset whose data is in this file. Raise RejectError for anything else."""
    dataset = group[key]
    if not isinstance(dataset, import_h5py().Dataset):
        raise RejectError("decode", f"{key} is a {type(dataset).__name__}, not a dataset")
    if dataset.dtype.kind not in "biuf" or not dataset.size:
        raise RejectError("decode", f"{key} holds {dataset.dtype} {dataset.shape}; expected numbers, at least one")
    declared, stored = dataset.size * dataset.dtype.itemsize, dataset.id.get_storage_size()
    if declared > max(_FEW_BYTES, _MAX_COMPRESSION * stored):
        raise RejectError("check", f"{key} declares {declared} bytes, but the file contains {stored}")
    return dataset


def _read_static(dataset: Any) -> npt.NDArray[Any]:
    """Return a static dataset without its axis of steps. Raise RejectError if it changes over time."""
    if dataset.ndim != 3:
        return np.asarray(dataset[()])
    first = np.asarray(dataset[0])
    if not np.array_equal(first, np.asarray(dataset[-1])):
        raise RejectError(
            "decode", f"{dataset.name.rsplit('/', 1)[-1]} changes over time; only static meshes are supported"
        )
    return first


TRAJECTORY_SUFFIXES = frozenset({".h5", ".hdf5"})
RECORD_SUFFIX = ".tfrecord"


@dataclass(frozen=True, slots=True)
class MeshEncoder(Config):
    """Encodes surfaces and simulations.

    `made_by` of a source creates a `Simulation`. For an HDF5 file, meta contains `trajectory`, `fields`, `widths` and
    `dt_s`; for a TFRecord file also `corners`, and `window` is in bytes. Every other file is a surface. The `sums` are
    used for normalisation: `edges` contains the count and the summed lengths; for simulations, `fields` (all nodes and
    steps) and `changes` (between steps, at normal and outflow nodes) each contain the count, the sums of the D channels
    and the sums of their squares.
    """

    modality: ClassVar[str] = "mesh"

    @property
    def profile(self) -> str:
        """The only profile: mesh."""
        return "mesh"

    def encode(self, source: Source) -> Encoded:
        """Encode a surface or a simulation."""
        computed = made_of(source, Simulation)
        if computed is not None:
            return encode_simulation(computed)
        meta, suffix = source.meta, source.path.suffix.lower()
        if suffix in TRAJECTORY_SUFFIXES | {RECORD_SUFFIX}:
            name, fields, widths, dt_s = (meta[key] for key in ("trajectory", "fields", "widths", "dt_s"))
            if suffix == RECORD_SUFFIX and source.window is not None:
                return encode_simulation(read_record(source.path, source.window, meta["corners"], fields, widths, dt_s))
            return encode_simulation(read_trajectory(source.path, name, fields, widths, dt_s))
        return encode_surface(read_surface(source.path))


def encode_surface(surface: Surface) -> Encoded:
    """Encode a surface."""
    facts = {"n_nodes": len(surface.vertices), "n_cells": len(surface.faces)}
    return Encoded(
        members={MESH: make_mesh_member(facts, vertices=surface.vertices, faces=surface.faces)},
        meta={**facts, "n_merged": surface.n_merged}
        | ({"left_out": list(surface.left_out)} if surface.left_out else {}),
        sums={"edges": _measure_edges(surface.vertices, surface.faces)},
    )


def encode_simulation(simulation: Simulation) -> Encoded:
    """Encode a simulation. Raise RejectError if it has no node to predict."""
    fields = simulation.fields
    predicted = np.isin(simulation.node_type, (NORMAL, OUTFLOW))
    if not predicted.any():
        raise RejectError("decode", "has no node of type normal or outflow, so there is nothing to predict")
    facts = {"n_nodes": fields.shape[1], "n_cells": len(simulation.cells)}
    mesh = make_mesh_member(
        facts, positions=simulation.positions, cells=simulation.cells, node_type=simulation.node_type
    )
    return Encoded(
        members={MESH: mesh, FIELDS: array_member(fields.astype("<f4", copy=False))},
        meta={
            **facts,
            "n_steps": len(fields),
            "field_names": list(simulation.field_names),
            "dt_s": simulation.dt_s,
        },
        sums={
            "edges": _measure_edges(simulation.positions, simulation.cells),
            "fields": _moments(fields),
            "changes": _moments(np.diff(fields[:, predicted].astype(np.float64), axis=0)),
        },
    )


def _moments(values: npt.NDArray[np.floating[Any]]) -> list[float]:
    """Return the count per channel of values (..., D), the sums of the channels and the sums of their squares."""
    flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
    return [float(len(flat)), *flat.sum(axis=0).tolist(), *np.square(flat).sum(axis=0).tolist()]


def _measure_edges(places: Float32s, cells: Int32s) -> list[float]:
    """Return the number of edges, counting shared ones twice, and the sum of their lengths."""
    corners = places[cells].astype(np.float64)
    pairs = [(i, j) for i in range(cells.shape[1]) for j in range(i)]
    lengths = [np.sqrt(np.square(corners[:, i] - corners[:, j]).sum(axis=1)).sum() for i, j in pairs]
    return [float(len(cells) * len(pairs)), float(np.sum(lengths))]
