"""MeshGraphNets' TFRecords, written here by TensorBoard's writer and Google's protobuf."""

import json
import struct

import numpy as np
import pytest
from meshgraphnets_layout import STATIC, message_of, write_records, write_set

from maskstream.preprocess import DATASETS
from maskstream.preprocess.encode.mesh.encoder import MeshEncoder
from maskstream.preprocess.encode.mesh.tfrecord import mask_crc32c, read_example, record_spans
from maskstream.preprocess.job.shards import make_shards
from maskstream.preprocess.source import RejectError
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify
from maskstream.shards.media.mesh_members import read_mesh

from ...damaged_files import flip

T, V = 7, 5
FORMS = {
    "cylinder_flow": ("cells:3", "mesh_pos:2", "node_type:1", "velocity:2", "pressure:1"),
    "airfoil": ("cells:3", "mesh_pos:2", "node_type:1", "density:1", "pressure:1", "velocity:2"),
    "deforming_plate": ("cells:4", "mesh_pos:3", "node_type:1", "world_pos:3", "stress:1"),
    "flag_simple": ("cells:3", "mesh_pos:2", "node_type:1", "world_pos:3"),
}


def arrays_of(form, seed):
    rng = np.random.default_rng(seed)
    found = {}
    for name, width in (one.split(":") for one in FORMS[form]):
        shape = (1 if name in STATIC else T, V, int(width))
        found[name] = rng.normal(size=shape).astype("<f4")
    corners = found["cells"].shape[-1]
    found["cells"] = np.stack([rng.permutation(V)[:corners] for _ in range(3)])[None].astype("<i4")
    found["node_type"] = np.array([0, 1, 3, 5, 0], "<i4").reshape(1, V, 1)
    return found


def written(root, form, **counts):
    splits = {
        split: [arrays_of(form, 100 * seed + n) for n in range(count)]
        for seed, (split, count) in enumerate(counts.items())
    }
    write_set(root, splits)
    return root


@pytest.mark.parametrize("form", FORMS)
def test_a_published_set_is_kept_number_by_number(tmp_path, form):
    root = written(tmp_path / form, form, train=11, valid=2, test=1)
    dataset = DATASETS["meshgraphnets"](root)
    assert {split: len(sources) for split, sources in dataset.splits.items()} == {"train": 11, "val": 2, "test": 1}
    source, wanted = dataset.splits["train"][7], arrays_of(form, 7)
    assert source.id == "train/7"
    found = MeshEncoder().encode(source)
    mesh = read_mesh(found.members["mesh.npz"].data)
    np.testing.assert_array_equal(mesh["positions"], wanted["mesh_pos"][0])
    np.testing.assert_array_equal(mesh["cells"], wanted["cells"][0])
    np.testing.assert_array_equal(mesh["node_type"], wanted["node_type"][0, :, 0])
    fields = [name for name in wanted if name not in STATIC]
    values = np.concatenate([wanted[name] for name in fields], axis=2)
    assert found.members["fields.npy"].data.endswith(values.tobytes())
    assert found.meta["n_steps"] == T
    if form == "flag_simple":
        assert found.meta["field_names"] == ["world_pos_x", "world_pos_y", "world_pos_z"]


def test_shards_of_a_moving_set(tmp_path):
    root = written(tmp_path / "raw", "deforming_plate", train=3, valid=1)
    report = make_shards("meshgraphnets", root, tmp_path / "out", workers=0)
    assert {name: split.counts["samples"] for name, split in report.splits.items()} == {"train": 3, "val": 1}
    assert verify(tmp_path / "out" / "train", decode=True).problems == []
    shape = Manifest.load(tmp_path / "out" / "train").component("fields.npy").lists["shape"][0].tolist()
    assert shape == [T, V, 4]


def test_sets_whose_meshes_are_made_anew_are_refused(tmp_path):
    root = written(tmp_path / "flag_dynamic", "flag_simple", train=1)
    meta = json.loads((root / "meta.json").read_text())
    meta["features"]["cells"]["type"] = meta["features"]["mesh_pos"]["type"] = "dynamic_varlen"
    (root / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(DatasetError, match=r"cells and mesh_pos changes over time .*Only meshes with fixed cells"):
        DATASETS["meshgraphnets"](root)


def test_records_and_their_checksums(tmp_path):
    messages = [b"", b"x" * 1000, bytes(range(256)) * 40]
    write_records(tmp_path / "a.tfrecord", messages)
    spans = record_spans(tmp_path / "a.tfrecord")
    data = (tmp_path / "a.tfrecord").read_bytes()
    assert [data[begin:stop] for begin, stop in spans] == messages
    assert [mask_crc32c(one) for one in messages] == [
        struct.unpack("<I", data[stop : stop + 4])[0] for _, stop in spans
    ]


@pytest.mark.parametrize(
    ("at", "says"),
    [(3, "is not a TFRecord file, or damaged: at byte 0"), (400, "the record at byte 12 does not match its checksum")],
)
def test_a_flipped_bit_is_found(tmp_path, at, says):
    root = written(tmp_path / "raw", "airfoil", train=2)
    path = root / "train.tfrecord"
    flip(path, at, 4)
    if at < 12:
        with pytest.raises(DatasetError, match=says):
            DATASETS["meshgraphnets"](root)
        return
    report = make_shards("meshgraphnets", root, tmp_path / "out", workers=0, max_rejects=1)
    assert report.splits["train"].counts["rejects"] == 1
    source = DATASETS["meshgraphnets"](root).splits["train"][0]
    with pytest.raises(RejectError, match=says):
        MeshEncoder().encode(source)


def test_records_that_are_cut_off_or_no_trajectory(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_records(path, [message_of(arrays_of("airfoil", 0))])
    ((begin, stop),) = record_spans(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(RejectError, match="is cut off: record 0 ends at"):
        record_spans(path)
    with pytest.raises(RejectError, match="is cut off: the record at byte 12"):
        read_example(path, (begin, stop))
    for data in (b"\xff" * 30, b"\x0a\x7f", whole[begin : begin + 50]):
        write_records(path, [data])
        with pytest.raises(RejectError, match=r"is not a tf\.train\.Example"):
            read_example(path, record_spans(path)[0])
