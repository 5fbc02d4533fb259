"""The members of a sample of the modality mesh, as bytes.

`mesh.npz` is uncompressed and has no pickles. A surface has vertices float32 (V, 3) and faces int32 (F, 3); a
simulation has positions float32 (V, 2 or 3), cells int32 (C, 3 or 4) and node_type int32 (V,), and beside it
`fields.npy`, float32 (T, V, D) in C order; the manifest says its shape and where its numbers begin.
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


def mesh_bytes(**arrays: npt.NDArray[Any]) -> bytes:
    """`mesh.npz` of the arrays; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: np.ascontiguousarray(a) for name, a in arrays.items()})
    return buffer.getvalue()


def read_mesh(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a `mesh.npz`; ShardError where it is none."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, ValueError, OSError, KeyError, EOFError) as error:
        raise ShardError(f"{MESH} cannot be read ({error})") from error


def step_span(first: int, count: int, n_nodes: int, channels: int) -> tuple[int, int]:
    """Offset behind the header and size, in bytes, of the steps [first, first + count)."""
    step = _FLOAT_BYTES * n_nodes * channels
    return first * step, count * step


def steps_of(data: bytes, n_nodes: int, channels: int) -> npt.NDArray[np.float32]:
    """Those steps, float32 (count, V, D), read-only."""
    return np.frombuffer(data, dtype="<f4").reshape(-1, n_nodes, channels)
