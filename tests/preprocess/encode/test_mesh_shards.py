"""Meshes to shards: folders of surfaces, HDF5 trajectories, computed flows."""

import json

import h5py
import numpy as np
import pytest
import trimesh

from maskstream.preprocess import DATASETS
from maskstream.preprocess.encode.mesh.encoder import MeshEncoder, Simulation
from maskstream.preprocess.job.shards import make_shards
from maskstream.preprocess.source import RejectError
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.inspect import inspect
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify
from maskstream.shards.media.mesh_members import find_step_span, read_mesh, read_steps

META = {
    "dt": 0.01,
    "field_names": ["cells", "mesh_pos", "node_type", "velocity", "pressure"],
    "features": {
        "cells": {"type": "static", "shape": [1, -1, 3], "dtype": "int32"},
        "mesh_pos": {"type": "static", "shape": [1, -1, 2], "dtype": "float32"},
        "node_type": {"type": "static", "shape": [1, -1, 1], "dtype": "int32"},
        "pressure": {"type": "dynamic", "shape": [6, -1, 1], "dtype": "float32"},
        "velocity": {"type": "dynamic", "shape": [6, -1, 2], "dtype": "float32"},
    },
}


def trajectory(seed, *, tiled=False):
    """Arrays of a trajectory as a published file has them."""
    rng = np.random.default_rng(seed)
    arrays = {
        "cells": np.array([[[0, 1, 2], [1, 3, 2]]], np.int32),
        "mesh_pos": rng.normal(size=(1, 4, 2)).astype(np.float32),
        "node_type": np.array([[[4], [0], [0], [5]]], np.int32),
    }
    if tiled:
        arrays = {name: np.repeat(array, 6, axis=0) for name, array in arrays.items()}
    return arrays | {
        "velocity": rng.normal(size=(6, 4, 2)).astype(np.float32),
        "pressure": rng.normal(size=(6, 4, 1)).astype(np.float32),
    }


def write_hdf5(path, trajectories):
    with h5py.File(path, "w") as file:
        for name, arrays in trajectories.items():
            for key, array in arrays.items():
                file.create_dataset(f"{name}/{key}", data=array)


@pytest.fixture
def raw(tmp_path):
    root = tmp_path / "raw"
    root.mkdir()
    (root / "meta.json").write_text(json.dumps(META))
    write_hdf5(root / "train.h5", {str(i): trajectory(i, tiled=i % 2 == 1) for i in range(11)})
    write_hdf5(root / "valid.h5", {"0": trajectory(99)})
    return root


def stored(split, source):
    """The arrays of the sample that was made of a source."""
    manifest = Manifest.load(split)
    index = manifest.sources().to_pylist().index(source)
    data = {}
    for name in ("mesh.npz", "fields.npy", "json"):
        data[name] = manifest.store.read(*manifest.member(index, name))
    return read_mesh(data["mesh.npz"]), data["fields.npy"], json.loads(data["json"]), manifest, index


def test_trajectories_are_kept_number_by_number(raw, tmp_path):
    report = make_shards("meshgraphnets", raw, tmp_path / "out", workers=0)
    assert {name: split.counts["samples"] for name, split in report.splits.items()} == {"train": 11, "val": 1}
    mesh, fields, about, manifest, index = stored(tmp_path / "out" / "train", "train/3")
    wanted = trajectory(3)
    np.testing.assert_array_equal(mesh["positions"], wanted["mesh_pos"][0])
    np.testing.assert_array_equal(mesh["cells"], wanted["cells"][0])
    np.testing.assert_array_equal(mesh["node_type"], wanted["node_type"][0, :, 0])
    values = np.concatenate([wanted["velocity"], wanted["pressure"]], axis=2)
    stored_fields = manifest.component("fields.npy")
    assert stored_fields.lists["shape"][index].tolist() == [6, 4, 3]
    begin, length = find_step_span(2, 3, 4, 3)
    begin += int(stored_fields.facts["data_offset"][index])
    np.testing.assert_array_equal(read_steps(fields[begin : begin + length], 4, 3), values[2:5])
    assert about["field_names"] == ["velocity_x", "velocity_y", "pressure"]
    assert about["dt_s"] == 0.01
    facts = manifest.component("mesh.npz").facts
    assert {name: int(values[index]) for name, values in facts.items()} == {"n_nodes": 4, "n_cells": 2}
    everything = np.concatenate(
        [np.concatenate([t["velocity"], t["pressure"]], axis=2).reshape(-1, 3) for t in map(trajectory, range(11))]
    ).astype(np.float64)
    count, *sums = manifest.info["sums"]["fields"]
    assert count == len(everything)
    np.testing.assert_allclose(sums, [*everything.sum(0), *np.square(everything).sum(0)], rtol=1e-9)
    assert verify(tmp_path / "out" / "train", decode=True).problems == []
    assert inspect(tmp_path / "out" / "train")["facts"]["mesh.npz.n_nodes"]["max"] == 4


def test_positions_may_be_named_pos(raw):
    arrays = trajectory(3)
    arrays["pos"] = arrays.pop("mesh_pos")
    write_hdf5(raw / "train.h5", {"3": arrays})
    (source,) = DATASETS["meshgraphnets"](raw).splits["train"]
    mesh = read_mesh(MeshEncoder().encode(source).members["mesh.npz"].data)
    np.testing.assert_array_equal(mesh["positions"], arrays["pos"][0])


def test_the_order_of_trajectories_is_that_of_their_numbers(raw):
    names = [source.meta["trajectory"] for source in DATASETS["meshgraphnets"](raw).splits["train"]]
    assert names == [str(i) for i in range(11)]


def broken(what):
    arrays = trajectory(0)
    if what == "moves":
        arrays["mesh_pos"] = np.repeat(arrays["mesh_pos"], 6, axis=0)
        arrays["mesh_pos"][3:] += 1
    elif what == "diverged":
        arrays["velocity"][4, 2, 1] = np.nan
    elif what == "corner":
        arrays["cells"][0, 1, 1] = 4
    elif what == "lacks":
        del arrays["pressure"]
    elif what == "short":
        arrays = {key: value[:1] for key, value in arrays.items()}
    elif what == "shape":
        arrays["pressure"] = arrays["pressure"][:, :3]
    elif what == "kind":
        arrays["node_type"][0, 1] = 9
    elif what == "given":
        arrays["node_type"][:] = 6
    return arrays


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("moves", "mesh_pos changes over time"),
        ("diverged", "diverged: not finite from step 4 of 6"),
        ("corner", "cells refer to nodes 0 to 4, but there are 4"),
        ("lacks", "no dataset 'pressure'"),
        ("short", "has 1 steps"),
        ("shape", "shapes velocity"),
        ("kind", "0 to 9; expected 0 to 8"),
        ("given", "no node of type normal"),
    ],
)
def test_trajectories_that_cannot_be_used_are_rejects(raw, tmp_path, what, reason):
    write_hdf5(raw / "train.h5", {"good": trajectory(1), "bad": broken(what)})
    report = make_shards("meshgraphnets", raw, tmp_path / "out", workers=0, max_rejects=1)
    assert report.splits["train"].counts["rejects"] == 1
    source = next(s for s in DATASETS["meshgraphnets"](raw).splits["train"] if s.meta["trajectory"] == "bad")
    with pytest.raises(RejectError, match=reason):
        MeshEncoder().encode(source)


def odd(kind):
    """What HDF5 can hold in place of the cells of a trajectory."""
    return {
        "group": lambda group: group.create_group("cells"),
        "type": lambda group: group.__setitem__("cells", np.dtype("i4")),
        "text": lambda group: group.__setitem__("cells", np.array([b"a", b"b"])),
        "complex": lambda group: group.__setitem__("cells", np.ones((2, 3), complex)),
        "compound": lambda group: group.__setitem__("cells", np.zeros((2, 3), [("a", "i4")])),
        "lists": lambda group: group.create_dataset("cells", (2,), dtype=h5py.vlen_dtype(np.int32)),
        "empty": lambda group: group.__setitem__("cells", h5py.Empty("i4")),
        "none": lambda group: group.__setitem__("cells", np.zeros((0, 4, 3), np.int32)),
        "number": lambda group: group.__setitem__("cells", 3),
        "fill": lambda group: group.create_dataset("cells", (10**9, 1, 3), np.int32, chunks=(10**5, 1, 3)),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("group", "cells is a Group, not a dataset"),
        ("type", "cells is a Datatype, not a dataset"),
        *((kind, "cells holds") for kind in ("text", "complex", "compound", "lists", "empty", "none")),
        ("number", "cells have the shape"),
        ("fill", "cells declares 12000000000 bytes, but the file contains 0"),
    ],
)
def test_odd_contents_of_hdf5_are_rejects(raw, kind, reason):
    arrays = trajectory(1)
    write_hdf5(raw / "train.h5", {"1": {key: value for key, value in arrays.items() if key != "cells"}})
    with h5py.File(raw / "train.h5", "a") as file:
        odd(kind)(file["1"])
    (source,) = DATASETS["meshgraphnets"](raw).splits["train"]
    with pytest.raises(RejectError, match=reason):
        MeshEncoder().encode(source)


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("cells", [[2**33, 1, 2], [1, 3, 2]], "cells have the value 8589934592, which does not fit int32"),
        ("cells", [[2**32 + 1, 0, 2], [1, 3, 2]], "cells have the value 4294967297"),
        ("cells", [[0.7, 1.5, 2], [1, 3, 2]], "cells have the value 0.7"),
        ("cells", [[np.nan, 1, 2], [1, 3, 2]], "cells have the value nan"),
        ("node_type", [2**32] * 4, "node types have the value 4294967296"),
        ("velocity", np.full((6, 4, 2), 1e300), "not finite from step 0"),
    ],
)
def test_numbers_that_a_cast_would_change_are_rejects(raw, name, values, reason):
    write_hdf5(raw / "train.h5", {"1": trajectory(1) | {name: np.array(values)}})
    (source,) = DATASETS["meshgraphnets"](raw).splits["train"]
    with pytest.raises(RejectError, match=reason):
        MeshEncoder().encode(source)


def test_whole_numbers_in_wider_types_are_as_they_are(raw):
    arrays = trajectory(1)
    wide = {"cells": arrays["cells"].astype("f8"), "node_type": arrays["node_type"].astype("u8")}
    write_hdf5(raw / "train.h5", {"1": arrays | wide, "2": arrays})
    wider, plain = (MeshEncoder().encode(one) for one in DATASETS["meshgraphnets"](raw).splits["train"])
    assert {name: one.data for name, one in wider.members.items()} == {n: o.data for n, o in plain.members.items()}


@pytest.mark.parametrize("dt", [float("nan"), float("inf"), -1, 0])
def test_a_time_between_steps_that_is_none_is_refused(raw, dt):
    (raw / "meta.json").write_text(json.dumps(META | {"dt": dt}))
    with pytest.raises(DatasetError, match="it must be a positive number of seconds"):
        DATASETS["meshgraphnets"](raw)


def test_hdf5_of_which_a_byte_is_another_is_a_sample_or_a_reject(raw):
    (source, *_) = DATASETS["meshgraphnets"](raw).splits["train"]
    data, seen = source.path.read_bytes(), set()
    for at in np.random.default_rng(0).integers(len(data) // 8, size=150).tolist():
        source.path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        try:
            MeshEncoder().encode(source)
            seen.add("sample")
        except RejectError:
            seen.add("reject")
    assert seen == {"sample", "reject"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"features": {}}, "no feature of"),
        ({"dt": "soon"}, "is malformed"),
        (
            {"features": {"\ud800": {"type": "dynamic", "shape": [6, -1, 2]}}},
            r"has the field name '\\ud800', which is not valid Unicode",
        ),
        (
            {"features": META["features"] | {"mesh_pos": {"type": "dynamic", "shape": [6, -1, 2]}}},
            "Only meshes with fixed",
        ),
    ],
)
def test_raw_data_that_is_not_as_published(raw, change, reason):
    (raw / "meta.json").write_text(json.dumps(META | change))
    with pytest.raises(DatasetError, match=reason):
        DATASETS["meshgraphnets"](raw)


def test_missing_and_damaged_files_of_trajectories(raw):
    with pytest.raises(DatasetError, match="does not exist"):
        DATASETS["meshgraphnets"](raw / "nowhere")
    (raw / "train.h5").write_bytes((raw / "train.h5").read_bytes()[:500])
    with pytest.raises(DatasetError, match="cannot be read as HDF5"):
        DATASETS["meshgraphnets"](raw)
    (raw / "train.h5").unlink()
    with pytest.raises(DatasetError, match="neither train"):
        DATASETS["meshgraphnets"](raw)
    (raw / "meta.json").unlink()
    with pytest.raises(DatasetError, match="no meta"):
        DATASETS["meshgraphnets"](raw)


def test_a_folder_of_surfaces_with_broken_ones(tmp_path):
    for i, suffix in enumerate(("obj", "ply", "stl", "off", "glb")):
        folder = tmp_path / "raw" / "train" / ("ball" if i % 2 else "box")
        folder.mkdir(parents=True, exist_ok=True)
        shape = trimesh.creation.icosphere(1) if i % 2 else trimesh.creation.box()
        data = shape.export(file_type=suffix)
        (folder / f"{i}.{suffix}").write_bytes(data if isinstance(data, bytes) else data.encode())
    (tmp_path / "raw" / "train" / "box" / "empty.obj").touch()
    (tmp_path / "raw" / "train" / "box" / "nan.obj").write_text("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    report = make_shards("mesh-folder", tmp_path / "raw", tmp_path / "out", workers=0, max_rejects=1)
    counts = report.splits["train"].counts
    assert (counts["samples"], counts["rejects"]) == (5, 2)
    split = tmp_path / "out" / "train"
    manifest = Manifest.load(split)
    assert manifest.info["label_names"] == ["ball", "box"]
    assert sorted(manifest.component("mesh.npz").facts["n_cells"].tolist()) == [12, 12, 12, 80, 80]
    assert verify(split, decode=True).problems == []


def test_a_simulation_checks_itself():
    good = {
        "positions": np.zeros((4, 2), np.float32),
        "cells": np.array([[0, 1, 2]], np.int32),
        "node_type": np.zeros(4, np.int32),
        "fields": np.zeros((2, 4, 1), np.float32),
        "field_names": ("a",),
        "dt_s": 1.0,
    }
    Simulation(**good)
    for name, value, reason in (
        ("positions", np.full((4, 2), np.inf, np.float32), "not finite"),
        ("positions", np.zeros((4, 5), np.float32), "positions have the shape"),
        ("cells", np.zeros((0, 3), np.int32), "not empty"),
        ("node_type", np.zeros(3, np.int32), "node types have the shape"),
        ("field_names", ("a", "b"), "fields have the shape"),
    ):
        with pytest.raises(RejectError, match=reason):
            Simulation(**(good | {name: value}))
