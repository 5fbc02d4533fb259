"""Mesh files that name other files: only the file of the dataset is opened."""

import json
import os

import numpy as np
import pytest

from maskstream.preprocess.encode.image.encoder import read_picture
from maskstream.preprocess.encode.mesh.encoder import read_trajectory
from maskstream.preprocess.encode.mesh.surfaces import read_surface
from maskstream.preprocess.encode.points.encoder import read_points
from maskstream.preprocess.source import RejectError
from tests.opened_files import listening, opened_files

pytest.importorskip("trimesh")
h5py = pytest.importorskip("h5py")

FIELDS = {
    "cells": np.array([[0, 1, 2]], np.int32),
    "mesh_pos": np.eye(3, 2, dtype=np.float32),
    "node_type": np.zeros((3, 1), np.int32),
}


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    folder.mkdir()
    with h5py.File(folder / "secret.h5", "w") as file:
        file["velocity"] = np.ones((2, 3, 2), np.float32)
        for key, value in FIELDS.items():
            file[f"0/{key}"] = value
        file["0/velocity"] = np.ones((2, 3, 2), np.float32)
    np.ones((2, 3, 2), np.float32).tofile(folder / "secret.raw")
    (folder / "secret.mtl").write_text("newmtl x\n")
    return folder


def attack(file, how, outside):
    """Write a group whose velocity, or that itself, lies in the secret file."""
    if how == "group":
        file["0"] = h5py.ExternalLink(outside / "secret.h5", "/0")
        return
    for key, value in FIELDS.items():
        file[f"0/{key}"] = value
    if how == "link":
        file["0/velocity"] = h5py.ExternalLink(outside / "secret.h5", "/velocity")
    elif how == "soft":
        file["x"] = h5py.ExternalLink(outside / "secret.h5", "/velocity")
        file["0/velocity"] = h5py.SoftLink("/x")
    elif how == "storage":
        raw = [(str(outside / "secret.raw"), 0, 48)]
        file.create_dataset("0/velocity", (2, 3, 2), np.float32, external=raw)
    else:
        layout = h5py.VirtualLayout((2, 3, 2), np.float32)
        layout[:] = h5py.VirtualSource(outside / "secret.h5", "velocity", (2, 3, 2))
        file.create_virtual_dataset("0/velocity", layout)


@pytest.mark.parametrize("how", ["group", "link", "soft", "storage", "virtual"])
def test_hdf5_takes_nothing_from_other_files(tmp_path, outside, how):
    path = tmp_path / "train.h5"
    with h5py.File(path, "w") as file:
        attack(file, how, outside)
    with h5py.File(path) as file:  # the attack works
        assert (file["0/velocity"][()] == 1).all()
    with opened_files(outside) as opened, pytest.raises(RejectError, match="only data in the file itself can be read"):
        read_trajectory(path, "0", ["velocity"], [2], 0.1)
    assert opened == []


def test_surfaces_load_no_materials_and_no_buffers(tmp_path, outside):
    with opened_files(outside) as opened, listening() as (port, requests):
        for library in (outside / "secret.mtl", f"http://127.0.0.1:{port}/x.mtl", "../outside/secret.mtl"):
            path = tmp_path / "x.obj"
            path.write_text(f"mtllib {library}\nusemtl x\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
            assert len(read_surface(path).faces) == 1
        for uri in ("../outside/secret.raw", f"http://127.0.0.1:{port}/x.bin", (outside / "secret.raw").as_uri()):
            path = tmp_path / "x.glb"
            path.write_bytes(glb(uri))
            with pytest.raises(RejectError):
                read_surface(path)
    assert requests == []
    assert opened == []


def glb(uri):
    """A binary glTF whose only buffer lies at `uri`."""
    scene = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "buffers": [{"byteLength": 48, "uri": uri}],
    }
    text = json.dumps(scene).encode()
    text += b" " * (-len(text) % 4)
    chunk = len(text).to_bytes(4, "little") + b"JSON" + text
    return b"glTF" + (2).to_bytes(4, "little") + (12 + len(chunk)).to_bytes(4, "little") + chunk


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("x.png", read_picture),
        ("x.obj", read_surface),
        ("x.h5", lambda path: read_trajectory(path, "0", ["velocity"], [2], 0.1)),
        *((f"x{suffix}", read_points) for suffix in (".npy", ".las", ".ply", ".off")),
    ],
)
def test_a_pipe_or_a_device_is_refused_at_once(tmp_path, name, read):
    os.mkfifo(tmp_path / name)
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "zero").rename(tmp_path / f"zero{name}")
    for file, what in ((name, "a pipe"), (f"zero{name}", "a device")):
        with pytest.raises(RejectError, match=f"is not a file but {what}"):
            read(tmp_path / file)
