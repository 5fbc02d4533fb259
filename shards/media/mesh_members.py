"""The members of a sample of the modality mesh, as bytes.

`mesh.npz` is uncompressed and has no pickles. A surface has vertices float32 (V, 3) and faces int32 (F, 3); a
simulation has positions float32 (V, 2 or 3), cells int32 (C, 3 or 4) and node_type int32 (V,), and beside it
`fields.npy`, float32 (T, V, D) in C order. The header of the latter always has 128 bytes, so the manifest's numbers of
steps and nodes and the member's size say where each step lies.
"""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ShardError

MESH, FIELDS = "mesh.npz", "fields.npy"
HEADER_BYTES = 128
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


def fields_bytes(fields: npt.NDArray[np.float32]) -> bytes:
    """`fields.npy` of float32 (T, V, D)."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(fields, dtype="<f4"), version=(1, 0), allow_pickle=False)
    if buffer.tell() != HEADER_BYTES + _FLOAT_BYTES * fields.size:
        raise ShardError(f"the header of {FIELDS} has not {HEADER_BYTES} bytes for the shape {fields.shape}")
    return buffer.getvalue()


def channels_of(size_bytes: int, n_steps: int, n_nodes: int) -> int:
    """D of a `fields.npy` of that size; ShardError where the numbers do not fit together."""
    channels, rest = divmod(size_bytes - HEADER_BYTES, max(_FLOAT_BYTES * n_steps * n_nodes, 1))
    if channels < 1 or rest:
        raise ShardError(f"{FIELDS} of {size_bytes} bytes is none of {n_steps} steps of {n_nodes} nodes")
    return channels


def step_span(first: int, count: int, n_nodes: int, channels: int) -> tuple[int, int]:
    """Offset in the member and size, in bytes, of the steps [first, first + count)."""
    step = _FLOAT_BYTES * n_nodes * channels
    return HEADER_BYTES + first * step, count * step


def steps_of(data: bytes, n_nodes: int, channels: int) -> npt.NDArray[np.float32]:
    """Those steps, float32 (count, V, D), read-only."""
    return np.frombuffer(data, dtype="<f4").reshape(-1, n_nodes, channels)
