"""Read and write the members of a mesh sample.

`mesh.npz` is uncompressed and without pickles. A surface has vertices float32 (V, 3) and faces int32 (F, 3). A
simulation has positions float32 (V, 2 or 3), cells int32 (C, 3 or 4) and node_type int32 (V,), and the member
`fields.npy`, float32 (T, V, D) in C order, whose shape and data offset are in the manifest. If a sample has several
meshes, such as `left.npz` and `right.npz`, their fields are `left.fields.npy` and `right.fields.npy`.
"""

import io
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.shards.arrays import Float32s
from maskstream.shards.errors import DataError

from .npy import read_npy

MESH, FIELDS = "mesh.npz", "fields.npy"
SURFACE, SIMULATION = ("vertices", "faces"), ("positions", "cells", "node_type")
"""Arrays of a surface and of a simulation."""
_NAMES = {*SURFACE, *SIMULATION}
_MAX_ARRAYS = 16
_DAMAGED = (zipfile.BadZipFile, NotImplementedError, ValueError, LookupError, OSError, EOFError)
_FLOAT_BYTES = 4


class MeshError(DataError):
    """The bytes are not a `mesh.npz`, or its arrays are inconsistent."""


def name_fields_component(mesh: str) -> str:
    """Return the name of the component with the steps of the mesh component `mesh`."""
    return FIELDS if mesh == MESH else f"{mesh.removesuffix('.npz')}.{FIELDS}"


def encode_mesh(**arrays: npt.NDArray[Any]) -> bytes:
    """Return a `mesh.npz` of the arrays; equal arrays result in equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: np.ascontiguousarray(a) for name, a in arrays.items()})
    return buffer.getvalue()


def read_mesh(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of a `mesh.npz`: SURFACE or SIMULATION; cells refer only to existing nodes.

    Nothing is decompressed, and no more memory is allocated than the member's size. Raises MeshError for any other
    file.
    """
    arrays = _arrays(data)
    names = SURFACE if "faces" in arrays else SIMULATION
    if missing := [name for name in names if name not in arrays]:
        raise MeshError(f"has no array {missing[0]!r}, only {', '.join(arrays) or 'none'}")
    nodes, cells = arrays[names[0]], arrays[names[1]]
    dims, corners = ((3,), (3,)) if names is SURFACE else ((2, 3), (3, 4))
    for name, array, dtype, columns in ((names[0], nodes, np.float32, dims), (names[1], cells, np.int32, corners)):
        if array.dtype != dtype or array.ndim != 2 or array.shape[1] not in columns:
            legal = " or ".join(map(str, columns))
            raise MeshError(f"{name} is {array.dtype} {array.shape}, not {np.dtype(dtype)} (n, {legal})")
    if not len(nodes):
        raise MeshError("has no nodes")
    if cells.size and (cells.min() < 0 or cells.max() >= len(nodes)):
        raise MeshError(f"its cells refer to nodes {cells.min()} to {cells.max()}, but it has {len(nodes)} nodes")
    if names is SIMULATION:
        kinds = arrays["node_type"]
        if kinds.dtype != np.int32 or kinds.shape != (len(nodes),):
            raise MeshError(f"node_type is {kinds.dtype} {kinds.shape}, not int32 ({len(nodes)},)")
    return {name: arrays[name] for name in names}


def _arrays(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays with known names. Raises MeshError unless all members are stored uncompressed, within
    `data`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            members = file.infolist()
            if len(members) > _MAX_ARRAYS:
                raise MeshError(f"has {len(members)} arrays; at most {_MAX_ARRAYS} are allowed")
            for member in members:
                if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                    raise MeshError(
                        f"{member.filename} is compressed ({member.compress_size} to {member.file_size} "
                        "bytes); the format stores arrays uncompressed"
                    )
                if member.flag_bits & 0x61:
                    raise MeshError(f"{member.filename} is encrypted")
            if sum(member.file_size for member in members) > len(data):
                raise MeshError(f"declares arrays larger than its {len(data)} bytes")
            names = {member.filename.removesuffix(".npy"): member for member in members}
            return {name: read_npy(file.read(member)) for name, member in names.items() if name in _NAMES}
    except MeshError:
        raise
    except _DAMAGED as error:
        raise MeshError(f"is not an NPZ file with numeric arrays ({error})") from error


def find_step_span(first: int, count: int, n_nodes: int, channels: int) -> tuple[int, int]:
    """Return offset (after the header) and size, in bytes, of the steps [first, first + count)."""
    step = _FLOAT_BYTES * n_nodes * channels
    return first * step, count * step


def read_steps(data: bytes, n_nodes: int, channels: int) -> Float32s:
    """Return the steps in `data`, float32 (count, V, D), read-only."""
    return np.frombuffer(data, dtype="<f4").reshape(-1, n_nodes, channels)
