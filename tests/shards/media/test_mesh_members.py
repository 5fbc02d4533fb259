"""A mesh is read as it is stored, and one that is compressed, forged or names missing nodes is refused."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest

from maskstream.shards.media.mesh_members import MeshError, encode_mesh, read_mesh
from maskstream.shards.media.npy import encode_npy

VERTICES = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
FACES = np.array([[0, 1, 2], [1, 2, 3]], np.int32)
KINDS = np.zeros(4, np.int32)


def surface(**changed: Any) -> bytes:
    return encode_mesh(**{"vertices": VERTICES, "faces": FACES} | changed)


def simulation(**changed: Any) -> bytes:
    return encode_mesh(**{"positions": VERTICES[:, :2], "cells": FACES, "node_type": KINDS} | changed)


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def test_a_mesh_is_read_as_it_was_written() -> None:
    for data, names in ((surface(), ["vertices", "faces"]), (simulation(), ["positions", "cells", "node_type"])):
        found = read_mesh(data)
        assert list(found) == names
        assert found[names[0]].flags.writeable
        np.testing.assert_array_equal(found[names[1]], FACES)


def test_a_bomb_of_a_megabyte_takes_no_more_memory_than_it_has_bytes() -> None:
    zeros = encode_npy(np.zeros((100 << 20) // 12 * 3, np.float32).reshape(-1, 3))
    bomb = zipped(("vertices.npy", zeros), ("faces.npy", encode_npy(FACES)), method=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 200_000 < 100_000_000 < len(zeros)
    tracemalloc.start()
    with pytest.raises(MeshError, match="is compressed"):
        read_mesh(bomb)
    assert tracemalloc.get_traced_memory()[1] < 4 * len(bomb)
    tracemalloc.stop()


def test_members_that_overlap_are_refused() -> None:
    """Each entry of the directory names the same bytes, so the arrays would be larger than the file."""
    one = zipped(("vertices.npy", encode_npy(np.zeros((9000, 3), np.float32))))
    begin = int.from_bytes(one[-6:-2], "little")
    entry, end = one[begin:-22], bytearray(one[-22:])
    end[8:12] = (9).to_bytes(2, "little") * 2
    end[12:16] = (9 * len(entry)).to_bytes(4, "little")
    with pytest.raises(MeshError, match="declares arrays larger than"):
        read_mesh(one[:begin] + 9 * entry + end)


HOSTILE = {
    "nothing": b"",
    "no zip": b"PK" + bytes(100),
    "cut": surface()[:-30],
    "no faces": encode_mesh(vertices=VERTICES),
    "a face of a missing vertex": surface(faces=FACES + 1),
    "a face of a negative vertex": surface(faces=FACES - 1),
    "a far face": surface(faces=FACES * (2**31 - 1)),
    "faces of two": surface(faces=FACES[:, :2].copy()),
    "flat faces": surface(faces=FACES.ravel()),
    "faces of floats": surface(faces=FACES.astype(np.float32)),
    "flat vertices": surface(vertices=VERTICES[:, :2].copy()),
    "vertices of doubles": surface(vertices=VERTICES.astype(np.float64)),
    "no vertices": surface(vertices=VERTICES[:0], faces=FACES[:0]),
    "text": zipped(("vertices.npy", b"no array"), ("faces.npy", encode_npy(FACES))),
    "no node types": encode_mesh(positions=VERTICES, cells=FACES),
    "too few node types": simulation(node_type=KINDS[:2]),
    "cells of five": simulation(cells=np.zeros((2, 5), np.int32)),
    "seventeen arrays": encode_mesh(**{f"a{n}": KINDS for n in range(17)}),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_mesh_is_refused(data: bytes) -> None:
    with pytest.raises(MeshError):
        read_mesh(data)
