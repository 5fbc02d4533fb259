"""The bytes of the members of a mesh sample.

`mesh.npz` is uncompressed and without pickles. A surface has vertices float32 (V, 3) and faces int32 (F, 3). A
simulation has positions float32 (V, 2 or 3), cells int32 (C, 3 or 4) and node_type int32 (V,), and the member
`fields.npy`, float32 (T, V, D) in C order, whose shape and data offset are in the manifest. If a sample has several
meshes, such as `left.npz` and `right.npz`, their fields are `left.fields.npy` and `right.fields.npy`.
"""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ShardError

MESH, FIELDS = "mesh.npz", "fields.npy"
_FLOAT_BYTES = 4


def fields_of(mesh: str) -> str:
    """The name of the component that holds the steps of the mesh component `mesh`."""
    return FIELDS if mesh == MESH else f"{mesh.removesuffix('.npz')}.{FIELDS}"


def mesh_bytes(**arrays: npt.NDArray[Any]) -> bytes:
    """`mesh.npz` of the arrays; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: np.ascontiguousarray(a) for name, a in arrays.items()})
    return buffer.getvalue()


def read_mesh(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a `mesh.npz`. Raises ShardError if it cannot be read."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, ValueError, OSError, KeyError, EOFError) as error:
        raise ShardError(f"{MESH} cannot be read ({error})") from error


def step_span(first: int, count: int, n_nodes: int, channels: int) -> tuple[int, int]:
    """Offset after the header and size, in bytes, of the steps [first, first + count)."""
    step = _FLOAT_BYTES * n_nodes * channels
    return first * step, count * step


def steps_of(data: bytes, n_nodes: int, channels: int) -> npt.NDArray[np.float32]:
    """The steps in `data`, float32 (count, V, D), read-only."""
    return np.frombuffer(data, dtype="<f4").reshape(-1, n_nodes, channels)
