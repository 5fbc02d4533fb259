"""Each class of damage is found and named; a sound split has no problems."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import socket
import tarfile
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskstream.shards.errors import ShardError, StoreError
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.inspect import inspect
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.verify import verify
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.text import json_member
from maskstream.shards.members.video import video_member

from ...damaged_files import flip
from ...with_new_checksum import renew_checksum
from ..conftest import index_of

INFO = DatasetInfo(dataset="toy", split="train", modality="video", profile="train")
SHARD = "toy-000001.tar"


def problems(folder: Path, *, decode: bool = False) -> str:
    report = verify(folder, decode=decode)
    assert report.ok == (not report.problems)
    return "\n".join(report.problems)


def test_a_split_names_no_code(split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    renew_checksum(split, settings={"encoder": {"tokenizer": {"kind": "planted:X", "sha256": "", "vocabulary": 3}}})
    assert "only commands and configs that you write yourself may refer to code" in problems(split)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("encoder", [None, True, 7, []])
def test_settings_of_an_encoder_that_are_none_are_a_problem(split: Path, encoder: object) -> None:
    renew_checksum(split, settings={"encoder": encoder})
    assert "settings are not valid in" in problems(split)


def test_a_sound_split_is_ok(split: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = verify(split, decode=True, progress=lambda done, total: seen.append((done, total)))
    assert report.problems == []
    assert report.ok
    assert (report.samples, report.shards) == (8, 3)
    assert report.size_bytes == sum(path.stat().st_size for path in split.glob("*.tar"))
    assert seen[-1] == (report.size_bytes, report.size_bytes)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_every_flipped_bit_is_found(place: float, bit: int, split: Path) -> None:
    good = (split / SHARD).read_bytes()
    data = bytearray(good)
    data[int(place * len(data))] ^= 1 << bit
    (split / SHARD).write_bytes(data)
    report = verify(split)
    (split / SHARD).write_bytes(good)
    assert f"{SHARD}: its sha256 differs from dataset.json" in report.problems
    assert all(problem.startswith(SHARD) for problem in report.problems)


def test_a_flipped_bit_in_a_member_names_the_sample(split: Path) -> None:
    manifest = Manifest.load(split)
    offset = int(manifest.component("mp4").offset[4])
    flip(split / SHARD, offset + 1000)
    assert f"{SHARD}: sample 'toy/0004', component 'mp4': its bytes differ from those" in problems(split)


@pytest.mark.parametrize("end", [b"", bytes(1024)], ids=["no end", "with an end"])
def test_a_tar_cut_at_a_member_boundary(split: Path, end: bytes) -> None:
    manifest = Manifest.load(split)
    cut = int(manifest.component("mp4").offset[5]) - 512
    (split / SHARD).write_bytes((split / SHARD).read_bytes()[:cut] + end)
    with tarfile.open(split / SHARD) as tar:
        assert len(tar.getnames()) == 4  # tarfile sees nothing wrong
    found = problems(split)
    assert f"{SHARD}: sample 'toy/0005', component 'mp4': is not in the tar" in found
    assert f"{SHARD}: sample 'toy/0005', component 'json': is not in the tar" in found
    assert f"{SHARD}: has {cut + len(end)} bytes, not" in found
    assert ("without an end-of-archive block" in found) == (not end)


def test_a_tar_cut_inside_a_member(split: Path) -> None:
    data = (split / SHARD).read_bytes()
    (split / SHARD).write_bytes(data[: len(data) // 2])
    found = problems(split)
    assert f"{SHARD}: the member 'toy/0004.mp4' at byte" in found
    assert f"{SHARD}: sample 'toy/0005', component 'json': is not in the tar" in found


HEADER_PLACES = st.sampled_from([*range(4), *range(124, 136), 156, *range(257, 265)])
HEADER_VALUES = st.sampled_from([*b"01234567xgLKSVD/ ", 0, 1, 0x80, 0xFF])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(member=st.integers(0, 5), changes=st.dictionaries(HEADER_PLACES, HEADER_VALUES, min_size=1, max_size=4))
def test_lying_headers_with_a_right_checksum_are_found(member: int, changes: dict[int, int], split: Path) -> None:
    good = (split / SHARD).read_bytes()
    with tarfile.open(split / SHARD) as tar:
        start = tar.getmembers()[member].offset
    header = bytearray(good[start : start + 512])
    for place, value in changes.items():
        header[place] = value
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    (split / SHARD).write_bytes(good[:start] + header + good[start + 512 :])
    report = verify(split)
    (split / SHARD).write_bytes(good)
    assert report.ok == (header == good[start : start + 512])


def test_a_stray_member(split: Path) -> None:
    with tarfile.open(split / SHARD, "a:", format=tarfile.USTAR_FORMAT) as tar:
        extra = tarfile.TarInfo("toy/9999.json")
        extra.size = 2
        tar.addfile(extra, io.BytesIO(b"{}"))
        again = tarfile.TarInfo("toy/0003.json")
        tar.addfile(again, io.BytesIO())
        tar.addfile(tarfile.TarInfo("toy/0003.lnk"))
    found = problems(split)
    for name in ("toy/9999.json", "toy/0003.json", "toy/0003.lnk"):
        assert f"{SHARD}: member '{name}' is not in the manifest or occurs twice" in found


def test_a_member_that_became_a_link(split: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(split / SHARD) as tar, tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as new:
        for member in tar:
            body = tar.extractfile(member)
            if member.name == "toy/0003.json":
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/hostname", 0
            new.addfile(member, body)
    (split / SHARD).write_bytes(out.getvalue())
    found = problems(split)
    assert f"{SHARD}: sample 'toy/0003', component 'json': is not a regular file in the tar" in found
    assert f"{SHARD}: sample 'toy/0004', component 'mp4': is at byte" in found


def test_a_missing_and_a_foreign_shard(split: Path) -> None:
    (split / SHARD).rename(split / "other-000000.tar")
    found = problems(split)
    assert f"{SHARD}: is missing" in found
    assert "other-000000.tar: is not a shard of this split" in found


def test_a_wrong_and_a_missing_idx(split: Path) -> None:
    idx = (split / SHARD).with_suffix(".idx")
    idx.write_text(idx.read_text().replace("toy/0004", "toy/0005"))
    assert problems(split) == f"{SHARD}: its index toy-000001.idx differs from the manifest from line 3 on"
    idx.unlink()
    assert problems(split) == f"{SHARD}: its index toy-000001.idx is missing"


def with_index(sample: Sample, folder: Path, **changes: object) -> str:
    """Problems of a split whose only video has an index with these fields changed."""
    index = dataclasses.replace(index_of(sample), **changes)
    wrong = dataclasses.replace(sample, members={"mp4": video_member(sample.members["mp4"].data, index)})
    finish_split(folder, INFO, [write_shard(folder / SHARD, [wrong])], [])
    return problems(folder, decode=True)


def test_wrong_tables_of_gops(samples: list[Sample], tmp_path: Path) -> None:
    sample = samples[6]
    video, size = index_of(sample), len(sample.members["mp4"].data)
    assert video.first_frame.tolist() == [0, 4, 8]
    prefix = f"{SHARD}: sample 'toy/0006', component 'mp4': "
    assert with_index(sample, tmp_path) == ""

    moved = video.offset + np.array([0, 8, 0])
    found = with_index(sample, tmp_path, offset=moved, size=np.diff(moved, append=size))
    assert found == f"{prefix}GOP 1 starts at byte {moved[1]}, but no fragment starts there"
    assert f"{prefix}GOP 1 is at bytes" in with_index(sample, tmp_path, offset=moved)
    assert f"{prefix}GOP 0 is at bytes" in with_index(sample, tmp_path, header_size=video.header_size - 1)
    short = video.size - np.array([0, 0, 5])
    assert f"{prefix}the GOPs end at byte {size - 5}, but the member has {size} bytes" in with_index(
        sample, tmp_path, size=short
    )
    falling = with_index(sample, tmp_path, first_frame=np.array([0, 8, 4]))
    assert f"{prefix}the GOPs' first frames (0, 8, 4) do not ascend" in falling
    beyond = with_index(sample, tmp_path, first_frame=np.array([0, 4, 12]))
    assert f"{prefix}the GOPs' first frames (0, 4, 12) do not ascend" in beyond
    assert f"{prefix}the GOPs have more leading frames (0, 5, 0)" in with_index(
        sample, tmp_path, lead=np.array([0, 5, 0])
    )
    with av.open(io.BytesIO(sample.members["mp4"].data)) as container:  # every 4th frame is the first of a GOP here
        keys = [p.pos + p.size for p in container.demux(video=0) if p.is_keyframe and p.pos is not None]
    ends = np.array(keys) - video.offset
    reach = np.ceil(100 * ends / video.size).astype(np.int64)
    assert with_index(sample, tmp_path, anchor_reach=reach) == ""
    assert "does not match the ends of the packets" in with_index(sample, tmp_path, anchor_reach=reach - 1)
    for wrong in (reach[:2], reach * 0, reach + 100):
        assert f"{prefix}anchor_reach has the {len(wrong)} values" in with_index(sample, tmp_path, anchor_reach=wrong)
    none = np.zeros(0, dtype=np.int64)
    assert f"{prefix}the table of GOPs is empty" in with_index(
        sample, tmp_path, first_frame=none, offset=none, size=none, lead=none
    )


def test_decoding_finds_what_the_table_does_not_show(samples: list[Sample], tmp_path: Path) -> None:
    sample = samples[6]
    prefix = f"{SHARD}: sample 'toy/0006', component 'mp4': "
    assert with_index(sample, tmp_path, n_frames=13) == f"{prefix}has 12 frames, not 13"
    shifted = with_index(sample, tmp_path, first_frame=np.array([0, 5, 8]))
    assert shifted == f"{prefix}frame 5 starts a GOP but is not a keyframe"
    assert with_index(sample, tmp_path, width=32) == f"{prefix}has frames of 64x48 pixels, not 32x48"
    broken = dataclasses.replace(
        sample, members={"mp4": video_member(b"\0" * len(sample.members["mp4"].data), index_of(sample))}
    )
    assert f"{prefix}cannot be decoded" in with_index(broken, tmp_path)


def test_counts_and_manifest_are_held_to_dataset_json(split: Path) -> None:
    path = split / "dataset.json"
    good = json.loads(path.read_text())
    renew_checksum(split, counts=good["counts"] | {"frames": 1, "rejects": 0})
    found = problems(split)
    assert "dataset.json: counts 1 frames, but there are" in found
    assert "dataset.json: counts 0 rejects, but there are 2" in found
    renew_checksum(split, **good | {"fingerprint": "0" * 32})
    assert problems(split) == "dataset.json: its fingerprint does not match its shards"
    renew_checksum(split, **good | {"label_names": ["a"]})
    assert problems(split) == "dataset.json: names 1 labels, but the manifest has the label 1"
    renew_checksum(split, **good)
    flip(split / "manifest-000000.parquet")
    assert "manifest-000000.parquet: its checksum (xxh3_128) differs from dataset.json" in problems(split)
    path.unlink()
    assert "it is not a finished split" in problems(split)


def test_rejects_are_held_to_dataset_json(split: Path) -> None:
    path = split / "rejects.parquet"
    good = path.read_bytes()
    path.write_bytes(good[:200] + bytes([good[200] ^ 1]) + good[201:])
    assert f"{path}: its checksum (xxh3_128) differs from dataset.json" in problems(split)
    Manifest.load(split)  # does not read the rejects
    pq.write_table(pa.table({"source": ["a", "b"], "stage": [1, 2], "reason": ["x", "y"]}), path)
    renew_checksum(split)
    assert f"{path} has the format 'none', the columns " in problems(split)
    path.unlink()
    assert "has a dataset.json, but no rejects.parquet" in problems(split)


def test_another_spelling_of_dataset_json_is_found(split: Path) -> None:
    path = split / "dataset.json"
    renew_checksum(split, settings={"rate": 1e-7, "title": "\u00e9"})
    assert problems(split) == ""
    for old, new in (("1e-07", "1E-07"), ("\\u00e9", "\\u00E9")):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        assert "versions/1.json does not match its description in dataset.json" in problems(split)
        path.write_text(text)


SPECIAL = ("dataset.json", "manifest-000000.parquet", "rejects.parquet", SHARD, "toy-000001.idx", "toy-000001.sums")


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("kind", ["FIFO", "socket", "folder", "device"])
def test_only_regular_files_are_opened(name: str, kind: str, split: Path) -> None:
    member = Manifest.load(split).member(3, "mp4")
    path = split / name
    path.unlink()
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(split):
            made.bind(name)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    reason = f"is a {kind}, not a regular file"
    assert reason in problems(split)
    if name in ("dataset.json", "manifest-000000.parquet"):
        with pytest.raises(ShardError, match=reason):
            Manifest.load(split)
    if name in ("dataset.json", "manifest-000000.parquet", "rejects.parquet"):
        with pytest.raises(ShardError, match=reason):
            inspect(split)
    if name in (SHARD, "toy-000001.sums"):
        with pytest.raises(StoreError, match=f"{name} cannot be opened .{reason}"):
            Manifest.load(split).store.read(*member)


def test_sums_of_blocks_are_checked_where_the_tar_is_whole(split: Path) -> None:
    sums = (split / SHARD).with_suffix(".sums")
    kept = sums.read_bytes()
    sums.write_bytes(bytes(len(kept)))
    assert problems(split) == f"{SHARD}: its sums file toy-000001.sums differs from the sums of its blocks"
    sums.unlink()
    assert "its sums file toy-000001.sums is missing" in problems(split)
    sums.write_bytes(kept)
    assert not problems(split)


def test_a_flood_of_problems_is_cut(tmp_path: Path) -> None:
    many = [Sample(key=f"k{number}", members={"json": json_member({})}, source="x") for number in range(120)]
    finish_split(tmp_path, INFO, [write_shard(tmp_path / SHARD, many)], [])
    (tmp_path / SHARD).write_bytes(bytes(1024))
    report = verify(tmp_path)
    assert len(report.problems) == 101
    assert report.problems[-1] == f"{SHARD}: and 22 more problems"
