"""What is written comes back from the manifest, as arrays; what is damaged says so."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskstream.shards.errors import SampleError, ShardError
from maskstream.shards.format import part_writer
from maskstream.shards.format.dataset import finish_split, read_dataset_json
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.records import Row, ShardRecord
from maskstream.shards.format.sample import DatasetInfo, Reject, Sample
from maskstream.shards.format.verify import verify
from maskstream.shards.format.writer import write_shard
from maskstream.shards.media.video_index import VideoIndex
from maskstream.shards.members.member import Member
from maskstream.shards.members.text import json_member
from maskstream.shards.members.video import video_member

from ...with_new_checksum import renew_checksum
from ..conftest import index_of

MakeSplit = Callable[..., list[ShardRecord]]
AUDIO = DatasetInfo(dataset="toy", split="test", modality="audio", profile="flac")


def test_round_trip(samples: list[Sample], make_split: MakeSplit, tmp_path: Path) -> None:
    records = make_split()
    manifest = Manifest.load(tmp_path)
    rows = [(number, row) for number, record in enumerate(records) for row in record.rows]
    assert len(manifest) == len(samples) == len(rows)
    assert manifest.shard_names == [record.name for record in records]
    assert (manifest.shard.dtype, manifest.label.dtype) == (np.int32, np.int64)
    assert {name: c.kind for name, c in manifest.components.items()} == {"json": "json", "mp4": "video"}
    assert manifest.sources().to_pylist() == [sample.source for sample in samples]
    assert manifest.keys(np.array([5, 0])) == [samples[5].key, samples[0].key]
    for i, (number, row) in enumerate(rows):
        assert (manifest.key(i), manifest.label[i], manifest.shard[i]) == (row.key, row.label, number)
        assert_components_equal(manifest, i, row, samples[i])
        assert_video_equal(manifest, i, row)


def assert_components_equal(manifest: Manifest, i: int, row: Row, sample: Sample) -> None:
    data = manifest.shard_path(i).read_bytes()
    for name, placed in row.members.items():
        component = manifest.component(name)
        assert component.present[i]
        assert (component.offset[i], component.size[i]) == (placed.offset, placed.size)
        assert component.digest[i].tobytes() == placed.digest
        assert data[placed.offset : placed.offset + placed.size] == sample.members[name].data


def assert_video_equal(manifest: Manifest, i: int, row: Row) -> None:
    placed = row.members["mp4"]
    wanted = VideoIndex.of(placed.facts, placed.words, placed.lists)
    video = manifest.video(i)
    for field in ("codec", "fps", "n_frames", "width", "height", "header_size"):
        assert getattr(video, field) == getattr(wanted, field)
    for field in ("first_frame", "offset", "size", "lead"):
        assert getattr(video, field).dtype == np.int64
        np.testing.assert_array_equal(getattr(video, field), getattr(wanted, field))


def test_samples_may_lack_components_and_video(samples: list[Sample], tmp_path: Path) -> None:
    mixed = [
        Sample(key="a", members={"txt": Member(kind="text", data=b""), "json": json_member({})}, source="a"),
        samples[0],
        Sample(key="z", members={"json": json_member({})}, source="z"),
    ]
    record = write_shard(tmp_path / "mixed-000000.tar", mixed)
    finish_split(tmp_path, AUDIO, [record], [])
    manifest = Manifest.load(tmp_path)
    assert manifest.component("txt").present.tolist() == [True, False, False]
    assert manifest.component("mp4").present.tolist() == [False, True, False]
    assert manifest.component("mp4").size.tolist() == [0, len(samples[0].members["mp4"].data), 0]
    assert not manifest.component("mp4").digest[[0, 2]].any()
    assert manifest.component("mp4").facts["n_frames"].tolist() == [0, 6, 0]
    assert manifest.component("mp4").words["codec"].code.tolist() == [-1, 0, -1]
    assert_video_equal(manifest, 1, record.rows[1])
    assert manifest.video(-2).n_frames == 6
    with pytest.raises(SampleError, match=r"'z' .*component 'mp4'.*the sample has no such component"):
        manifest.video(2)
    with pytest.raises(IndexError):
        manifest.video(3)


def test_a_split_may_be_empty(tmp_path: Path) -> None:
    finish_split(tmp_path, AUDIO, [], [Reject(source="a", stage="probe", reason="r")])
    manifest = Manifest.load(tmp_path)
    assert (len(manifest), manifest.shard_names, manifest.components) == (0, [], {})
    assert verify(tmp_path).ok


def test_parts_and_row_groups_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_split: MakeSplit) -> None:
    whole = tmp_path / "whole"
    pieces = tmp_path / "pieces"
    for folder, rows in ((whole, 1 << 16), (pieces, 2)):
        monkeypatch.setattr(part_writer, "PART_SAMPLES", rows)
        folder.mkdir()
        make_split(folder)
    assert [len(list(folder.glob("manifest-*.parquet"))) for folder in (whole, pieces)] == [1, 3]
    assert pq.ParquetFile(pieces / "manifest-000000.parquet").num_row_groups == 2
    one, other = Manifest.load(whole), Manifest.load(pieces)
    assert one.shard_names == other.shard_names
    assert one.keys(range(8)) == other.keys(range(8))
    np.testing.assert_array_equal(one.shard, other.shard)
    np.testing.assert_array_equal(one.component("mp4").digest, other.component("mp4").digest)
    for i in range(8):
        np.testing.assert_array_equal(one.video(i).offset, other.video(i).offset)
        np.testing.assert_array_equal(one.video(i).first_frame, other.video(i).first_frame)


def test_a_split_without_video_says_so(tmp_path: Path) -> None:
    record = write_shard(
        tmp_path / "toy-000000.tar", [Sample(key="a", members={"flac": Member(kind="bytes", data=b"x")}, source="a")]
    )
    finish_split(tmp_path, AUDIO, [record], [])
    manifest = Manifest.load(tmp_path)
    with pytest.raises(ValueError, match=r"no component is video; the split contains flac \(bytes\)"):
        manifest.video(0)
    with pytest.raises(ValueError, match=r"has no component 'mp4'; its components are flac"):
        manifest.component("mp4")


def test_gops_of_takes_the_leading_frames_from_the_next_gop(samples: list[Sample], tmp_path: Path) -> None:
    video = index_of(samples[6])
    assert video.first_frame.tolist() == [0, 4, 8]
    lead = np.array([0, 2, 0])
    opened = type(video)(**{name: getattr(video, name) for name in video.__slots__} | {"lead": lead})
    sample = Sample(key="open", members={"mp4": video_member(samples[6].members["mp4"].data, opened)}, source="open")
    finish_split(tmp_path, AUDIO, [write_shard(tmp_path / "toy-000000.tar", [sample])], [])
    index = Manifest.load(tmp_path).video(0)
    assert index.lead.tolist() == [0, 2, 0]
    # Frames 2 and 3 of GOP 0 are stored behind the keyframe of GOP 1.
    cases = {(0, 1): (0, 1), (2,): (0, 2), (1, 3): (0, 2), (4,): (1, 2), (7, 5): (1, 2), (11, 0): (0, 3)}
    for frames, run in cases.items():
        assert index.gops_of(np.array(frames)) == run


def test_pickles_as_its_folder(split: Path) -> None:
    manifest = Manifest.load(split)
    data = pickle.dumps(manifest)
    assert len(data) < 400
    copy = pickle.loads(data)
    assert copy.fingerprint == manifest.fingerprint
    assert copy.keys(range(len(copy))) == manifest.keys(range(len(manifest)))


def test_the_same_input_in_any_order_gives_the_same_bytes(make_split: MakeSplit, tmp_path: Path) -> None:
    info = DatasetInfo(dataset="toy", split="train", modality="video", profile="train", settings={"x": 1})
    rejects = [Reject(source=name, stage="probe", reason="r") for name in "ab"]
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, step in zip(folders, (1, -1), strict=True):
        folder.mkdir()
        finish_split(folder, info, make_split(folder)[::step], rejects[::step])
    for name in ("dataset.json", "manifest-000000.parquet", "rejects.parquet"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert Manifest.load(folders[0]).fingerprint == Manifest.load(folders[1]).fingerprint


def test_dataset_json_says_what_is_there(samples: list[Sample], split: Path) -> None:
    info = read_dataset_json(split)
    assert (info["format"], info["version"]) == ("maskstream/4", 1)
    assert (info["label_names"], info["settings"]) == (["a", "b"], {"short_side": 32})
    assert info["counts"] == {
        "samples": 8,
        "rejects": 2,
        "shards": 3,
        "frames": sum(index_of(sample).n_frames for sample in samples),
        "bytes": sum(path.stat().st_size for path in split.glob("*.tar")),
    }
    assert info["parts"] == [{"name": "manifest-000000.parquet", "samples": 8, "shards": 3}]
    assert sorted(info["files"]) == ["manifest-000000.parquet", "rejects.parquet"]
    assert [shard.samples for shard in Manifest.load(split).shards()] == [3, 3, 2]
    assert (split / "versions/1.json").read_bytes() == (split / "dataset.json").read_bytes()
    assert pq.read_table(split / "rejects.parquet").to_pylist() == [
        {"source": "a.mp4", "stage": "probe", "reason": "x"},
        {"source": "z.mp4", "stage": "decode", "reason": "no frames"},
    ]


def test_fingerprint_follows_the_shards(samples: list[Sample], split: Path, tmp_path: Path) -> None:
    before = Manifest.load(split).fingerprint
    finish_split(split, AUDIO, [write_shard(tmp_path / "toy-000000.tar", samples[:2])], [])
    assert Manifest.load(split).fingerprint != before


def test_finish_split_refuses_what_does_not_belong_together(samples: list[Sample], tmp_path: Path) -> None:
    first = write_shard(tmp_path / "toy-000000.tar", samples[:2])
    second = write_shard(tmp_path / "toy-000001.tar", samples[1:3])
    with pytest.raises(ShardError, match=r"1 keys occur more than once .* 'toy/0001'"):
        finish_split(tmp_path, AUDIO, [first, second], [])
    with pytest.raises(ShardError, match="pass each shard once"):
        finish_split(tmp_path, AUDIO, [first, first], [])
    (tmp_path / "toy-000001.tar").unlink()
    with pytest.raises(ShardError, match=r"toy-000001.tar is missing"):
        finish_split(tmp_path, AUDIO, [first, second], [])


def refused(split: Path, match: str) -> None:
    with pytest.raises(ShardError, match=match):
        Manifest.load(split)


def test_unfinished_and_damaged_splits_say_what_to_do(split: Path) -> None:
    manifest, description = split / "manifest-000000.parquet", split / "dataset.json"
    good = manifest.read_bytes()
    manifest.write_bytes(good[:100])
    refused(
        split,
        r"manifest-000000.parquet has 100 bytes, but dataset.json lists \d+; run the same `maskstream shards` again",
    )
    manifest.write_bytes(good + b"x")
    refused(split, r"manifest-000000.parquet cannot be read \(has \d+ bytes, but at most \d+ are allowed\)")
    manifest.write_bytes(good[:-1] + b"x")
    refused(split, r"manifest-000000.parquet: its checksum \(xxh3_128\) differs from dataset.json; run the same")
    manifest.unlink()
    refused(split, r"no manifest-000000.parquet; run the same")
    manifest.write_bytes(good)
    description.write_text(description.read_text().replace('"samples": 8', '"samples": 7'))
    refused(
        split, "dataset.json is damaged: its contents do not match its checksum; run the same `maskstream shards` again"
    )
    description.write_text("[" * 100_000)
    refused(split, "dataset.json is damaged: it is not valid JSON")
    for depth in range(900, 1000, 3):
        description.write_text('{"xxh3_128": "0", "settings": ' + "[" * depth + "]" * depth + "}")
        refused(split, "dataset.json is damaged: it")
    description.write_bytes(b"")
    refused(split, "dataset.json is damaged: it is empty")
    description.unlink()
    refused(split, r"it is not a finished split; create one from raw data with `maskstream shards DATASET")
    refused(split / "nowhere", "no folder")


def test_other_formats_are_refused_with_the_remedy(split: Path) -> None:
    for older in ("maskstream/1", "maskstream/2", "maskstream/3"):
        (split / "dataset.json").write_text(json.dumps({"format": older, "counts": {}}))
        refused(split, f"'{older}'; this version of maskstream reads 'maskstream/4': make the shards again with `mask")


def test_later_formats_and_forged_contents_are_refused(split: Path) -> None:
    kept = (split / "dataset.json").read_bytes()
    good = json.loads(kept)
    manifest = (split / "manifest-000000.parquet").read_bytes()
    for changes, match in (
        ({"format": "maskstream/5"}, "has the format 'maskstream/5'"),
        ({"counts": good["counts"] | {"samples": 7}}, "has 8 samples, but dataset.json lists 7"),
        ({"parts": 3}, "parts are not valid in"),
        ({"version": 0}, "version are not valid in"),
        ({"version": 2**31}, "version are not valid in"),
        ({"rejects": "x"}, "files are not valid in"),
        ({"rejects": ["x"]}, "files and rejects are not valid in"),
        ({"label_names": [1]}, "label_names are not valid in"),
        ({"settings": [], "dataset": None}, "settings and dataset are not valid in"),
        ({"sums": {"points": [1, float("nan")]}}, "sums are not valid in"),
        ({"parts": [good["parts"][0] | {"samples": 9}]}, "has 8 samples, but dataset.json lists 9"),
        ({"parts": [good["parts"][0] | {"shards": 2}]}, "has 3 shards, but dataset.json lists 2"),
        ({"parts": good["parts"] * 2}, "parts are not valid in"),
        ({"parts": []}, "has 0 samples, but dataset.json lists 8"),
    ):
        renew_checksum(split, **changes)
        refused(split, match)
        (split / "dataset.json").write_bytes(kept)
    renew_checksum(split, "counts", "parts")
    refused(split, "lacks counts, parts")
    (split / "dataset.json").write_bytes(kept)
    for data, match in ((b"PAR1", "cannot be read"), (manifest[:-50] + manifest[-8:], "cannot be read")):
        (split / "manifest-000000.parquet").write_bytes(data)
        renew_checksum(split)
        refused(split, match)


def changed_column(split: Path, name: str, column: pa.Array) -> None:
    """Replace a column of the manifest; all checksums fit."""
    table = pq.read_table(split / "manifest-000000.parquet")
    changed = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), split / "manifest-000000.parquet")
    renew_checksum(split)


def test_forged_columns_are_refused(split: Path) -> None:
    words = pa.dictionary(pa.int32(), pa.string())
    shards = [f"toy-{number:06d}.tar" for number in (0, 0, 0, 1, 1, 1, 2, 2)]
    buffers = [None, pa.py_buffer(np.arange(9, dtype=np.int64)), pa.py_buffer(b"\xff" * 8)]
    not_utf8 = pa.Array.from_buffers(pa.large_string(), 8, buffers)
    for name, column, match in (
        ("key", pa.array([None, *"abcdefg"], pa.large_string()), "'key' has 1 nulls"),
        ("key", not_utf8, "Invalid UTF8"),
        ("shard", pa.array([None, *shards[1:]], words), "has shard numbers from -1 to 2, but 3 shards"),
        (
            "shard",
            pa.array(["../x.tar"] * 8, words),
            r"lists 1 shards that it does not describe, such as '\.\./x\.tar'",
        ),
        ("shard", pa.array(shards, pa.string()), "column 'shard' is string, not dictionary"),
        ("label", pa.array([-2] * 8), "has the label -2"),
        ("mp4.offset", pa.array([-512] * 8), r"places component 'mp4' of sample 0 at bytes -512"),
        ("mp4.size", pa.array([1 << 62] * 8), r"places component 'mp4' of sample 0 at bytes 512 to 46116860184273884"),
        ("mp4.size", pa.array([-1] * 8), "places component 'mp4' of sample 0"),
        ("json.offset", pa.array([(1 << 63) - 1] * 8), "places component 'json' of sample 0"),
        ("mp4.n_frames", pa.array([True] * 8), "column 'mp4.n_frames' is bool, not int64 or double"),
    ):
        before = {path: path.read_bytes() for path in (split / "manifest-000000.parquet", split / "dataset.json")}
        changed_column(split, name, column)
        refused(split, match)
        for path, data in before.items():
            path.write_bytes(data)


def changed_shards(split: Path, change: Callable[[list[Any]], list[Any]]) -> None:
    """Change what the manifest says of shards; all checksums fit."""
    table = pq.read_table(split / "manifest-000000.parquet")
    metadata = dict(table.schema.metadata)
    metadata[b"maskstream.shards"] = json.dumps(change(json.loads(metadata[b"maskstream.shards"]))).encode()
    pq.write_table(table.replace_schema_metadata(metadata), split / "manifest-000000.parquet")
    renew_checksum(split)


def test_forged_shards_are_refused(split: Path) -> None:
    before = {path: path.read_bytes() for path in (split / "manifest-000000.parquet", split / "dataset.json")}
    for change, match in (
        (lambda shards: shards[:2], "has 2 shards, but dataset.json lists 3"),
        (lambda shards: [*shards[:2], shards[0]], "lists a shard twice"),
        (lambda shards: [*shards[:2], shards[2] | {"name": "x.tar"}], "lists 1 shards that it does not describe"),
        (lambda shards: [shard | {"size_bytes": 9000} for shard in shards], "which has 9000 bytes"),
        (lambda shards: [shard | {"size_bytes": 1 << 70} for shard in shards], "OverflowError"),
        (lambda shards: [shard | {"size_bytes": -1} for shard in shards], "has impossible values"),
        (lambda shards: [shard | {"samples": 4} for shard in shards], "do not match the order and sizes"),
        (lambda shards: [shards[1], shards[0], shards[2]], "do not match the order and sizes"),
        (lambda shards: [1, 2, 3], "the shard entry 1 is invalid"),
    ):
        changed_shards(split, change)
        refused(split, match)
        for path, data in before.items():
            path.write_bytes(data)


@pytest.mark.parametrize("name", ["../private/x.tar", "/etc/x.tar", "sub/x.tar", "x.npz", "x.tar/..", "a\0.tar", ".."])
def test_shard_names_stay_in_the_folder(split: Path, name: str) -> None:
    changed_shards(split, lambda shards: [shards[0] | {"name": name}, *shards[1:]])
    refused(split, r"a shard is named .*; expected names of tars in the folder itself")


@pytest.mark.parametrize("name", ["a/manifest-000000.parquet", "/manifest-000000.parquet", "manifest.parquet", "x"])
def test_part_names_stay_in_the_folder(split: Path, name: str) -> None:
    info = json.loads((split / "dataset.json").read_text())
    renew_checksum(
        split, parts=[info["parts"][0] | {"name": name}], files=info["files"] | {name: info["files"]["rejects.parquet"]}
    )
    refused(split, "a part has the name")


def test_shards_may_be_links_to_other_places(split: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    where = Manifest.load(split).member(3, "mp4")
    bytes_before = Manifest.load(split).store.read(*where)
    elsewhere = tmp_path_factory.mktemp("disk") / "x.tar"
    shard = split / "toy-000001.tar"
    shard.rename(elsewhere)
    shard.symlink_to(elsewhere)
    assert Manifest.load(split).store.read(*where) == bytes_before
    assert verify(split).ok


def test_a_folder_of_splits_names_them(make_split: MakeSplit, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    make_split(tmp_path / "train")
    with pytest.raises(ShardError, match=r"contains the splits train; pass one of them, such as .*train"):
        Manifest.load(tmp_path)
