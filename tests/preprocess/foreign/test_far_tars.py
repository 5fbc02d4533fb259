"""Tars at URLs are indexed where they are, into a folder of any place, and read from there as local ones are."""

from __future__ import annotations

import io
import json
import pickle
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from maskstream.pipelines import VideoClip, video_loader
from maskstream.pipelines.modalities.split import check_cache, open_manifest
from maskstream.preprocess import index_tars
from maskstream.shards.errors import OutageError, ShardError, StoreError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify
from maskstream.shards.stores import client
from maskstream.shards.stores.base import Range
from tests.s3_double import BUCKET, S3Double

from ...videos import write_frames
from ...web_server import WebServer, serving
from .foreign_tars import rejects, write_tar

CLIP = VideoClip(frames=4, stride=2, size=32)


def video(seed: int) -> bytes:
    """A noisy video of 24 frames in three GOPs."""
    rng, buffer = np.random.default_rng(seed), io.BytesIO()
    frames = (rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(24))
    options, muxer = {"g": "8", "preset": "ultrafast"}, {"format": "mp4"}
    write_frames(buffer, frames, rate=25, options=options, muxer=muxer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tars of three and two samples; a key of the first occurs in the second again, and one sample is no video."""
    folder = tmp_path_factory.mktemp("raw")
    tars: dict[str, list[tuple[str, bytes]]] = {"a.tar": [], "b.tar": []}
    for n in range(5):
        members = [(f"s{n}.mp4", video(n)), (f"s{n}.cls", b"cat" if n % 2 else b"dog")]
        tars["a.tar" if n < 3 else "b.tar"] += members
    tars["a.tar"] += [("text.mp4", b"no video")]
    tars["b.tar"] += [("s1.mp4", video(9))]
    for name, members in tars.items():
        write_tar(folder / name, members)
    return folder


@pytest.fixture
def server(raw: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setattr(client, "MAX_RETRIES", 1)
    monkeypatch.setattr(client, "LEAST_PAUSE_S", 0.01)
    with serving(raw) as server:
        yield server


@pytest.fixture
def double(raw: Path, double: S3Double) -> S3Double:
    for path in raw.glob("*.tar"):
        double.objects[f"raw/{path.name}"] = path.read_bytes()
    return double


@pytest.fixture
def near(raw: Path, tmp_path: Path) -> Path:
    """The index of the local tars."""
    index_tars([raw], tmp_path / "near", workers=0)
    return tmp_path / "near"


def batches(location: str | Path, cache: Path | None = None) -> list[torch.Tensor]:
    loader = video_loader(location, clip=CLIP, mask=None, batch_size=2, seed=1, threads=1, device="cpu", cache=cache)
    return [batch.video for batch in loader]


def check(far: str | Path, near: Path) -> None:
    """Two indexes differ in the names of their tars alone, and their batches are the same."""
    ours, theirs = Manifest.load(far), Manifest.load(near)
    assert ours.keys(range(len(ours))) == theirs.keys(range(len(theirs))) == ["s0", "s1", "s2", "s3", "s4"]
    assert ours.info["label_names"] == theirs.info["label_names"] == ["cat", "dog"]
    assert ours.label.tolist() == theirs.label.tolist() == [1, 0, 1, 0, 1]
    for name, component in theirs.components.items():
        for i in range(len(theirs)):
            assert ours.components[name].facts_of(i) == component.facts_of(i)
        assert np.array_equal(ours.components[name].digest, component.digest)
    assert verify(far, decode=True).problems == []
    for one, other in zip(batches(far), batches(near), strict=True):
        assert torch.equal(one, other)


def test_tars_of_a_web_server_are_named_by_their_urls(server: WebServer, near: Path, tmp_path: Path) -> None:
    urls = [f"{server.url}/{name}" for name in ("b.tar", "a.tar")]
    report = index_tars(urls, tmp_path / "far", workers=0)
    assert (report.tars, report.samples, report.rejects) == (2, 5, {"open": 1, "tar": 1})
    assert Manifest.load(tmp_path / "far").shard_names == sorted(urls)
    beside = {path.name for path in (tmp_path / "far").glob("a.*")}
    assert beside == {"a.idx", "a.packets", "a.packets.sums", "a.sums"}
    far, ours = ({Path(name).name: why for name, why in rejects(folder).items()} for folder in (tmp_path / "far", near))
    assert far["b.tar:s1"] == f"its key also occurs in {server.url}/a.tar; keys must be unique within a split"
    assert {*far} == {*ours} == {"a.tar:text", "b.tar:s1"}
    server.requests.clear()
    check(tmp_path / "far", near)
    assert {one.name for one in server.requests} == {"a.tar", "b.tar"}  # the sums are local
    cached = [open_manifest(tmp_path / "far", cache=tmp_path / "cache") for _ in range(2)]
    check_cache(tmp_path / "cache", cached)
    name = next(name for name, component in cached[0].components.items() if component.offset[0])
    assert cached[0].store.read_many([cached[0].member(0, name)])
    server.requests.clear()
    assert cached[1].store.read_many([cached[1].member(0, name)])
    assert not [one for one in server.requests if one.name.endswith(".tar")]


def test_what_the_server_changes_is_found(server: WebServer, tmp_path: Path) -> None:
    index_tars([f"{server.url}/a.tar"], tmp_path / "far", workers=0)
    store = pickle.loads(pickle.dumps(Manifest.load(tmp_path / "far").store))
    name, rng = f"{server.url}/a.tar", random.Random(0)
    whole = store.unchecked(name, 0, store.size(name))
    ranges = [Range(name, at, 100) for at in (700, 5000, 700)] + [Range("a.sums", 0, 8)]
    read = store.read_many(ranges)
    assert read[:3] == [whole[at : at + 100] for at in (700, 5000, 700)]
    assert store.read("a.sums", 0, 8) == read[3] == (tmp_path / "far/a.sums").read_bytes()[:8]
    server.answer = lambda request, body: bytes([body[0] ^ (1 << rng.randrange(8)), *body[1:]])
    with pytest.raises(StoreError, match=r"http://.*/a\.tar: bytes 0 to 4096 differ from what was written"):
        store.read(name, 700, 100)


def test_an_index_at_a_url_sends_no_requests_to_other_servers(
    double: S3Double, server: WebServer, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match=f"refers to {server.url}, which is on a different server.*; pass a different --out"
    ):
        index_tars([f"{server.url}/a.tar"], f"s3://{BUCKET}/far", workers=0)
    index_tars([f"{server.url}/a.tar"], tmp_path / "far", workers=0)
    for path in (tmp_path / "far").rglob("*"):
        if path.is_file():
            double.objects[f"far/{path.relative_to(tmp_path / 'far').as_posix()}"] = path.read_bytes()
    server.requests.clear()
    with pytest.raises(ShardError, match=f"s3://{BUCKET}/far refers to {server.url}, which is on a different server"):
        Manifest.load(f"s3://{BUCKET}/far")
    assert not verify(f"s3://{BUCKET}/far").ok
    assert not server.requests


def test_an_index_lies_beside_the_tars_of_an_object_store(double: S3Double, near: Path) -> None:
    report = index_tars([f"s3://{BUCKET}/raw/"], workers=0)
    assert report.folder == f"s3://{BUCKET}/raw"
    assert Manifest.load(f"s3://{BUCKET}/raw").shard_names == ["a.tar", "b.tar"]
    assert not [name for name in double.objects if ".records" in name]
    check(f"s3://{BUCKET}/raw", near)


def test_an_index_at_a_url_names_tars_of_another_folder(double: S3Double, near: Path, tmp_path: Path) -> None:
    index_tars([f"s3://{BUCKET}/raw"], f"s3://{BUCKET}/index", workers=0)
    check(f"s3://{BUCKET}/index", near)
    cached = [batches(f"s3://{BUCKET}/index", cache=tmp_path / "cache") for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(*cached, strict=True))
    assert list((tmp_path / "cache").iterdir())


def test_a_stopped_run_reads_only_what_it_has_not_read(server: WebServer, tmp_path: Path) -> None:
    urls = [f"{server.url}/{name}" for name in ("a.tar", "b.tar")]
    server.answer = lambda request, body: 503 if request.name == "b.tar" else body
    with pytest.raises(OutageError, match=r"b\.tar"):
        index_tars(urls, tmp_path / "far", modality="video", workers=0, pauses_s=())
    server.answer = lambda request, body: body
    server.requests.clear()
    assert index_tars(urls, tmp_path / "far", modality="video", workers=0).samples == 5
    assert {one.name for one in server.requests if one.method == "GET"} == {"b.tar"}


def test_what_cannot_be_indexed_is_refused(server: WebServer, raw: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"can be read but not written to; .*; pass a different --out"):
        index_tars([f"{server.url}/a.tar"])
    with pytest.raises(ValueError, match="cannot list files; pass the URLs of its tars"):
        index_tars([server.url], tmp_path)
    with pytest.raises(ValueError, match="pass a local folder as --out"):
        index_tars([raw / "a.tar"], f"s3://{BUCKET}/x")
    with pytest.raises(OutageError, match=r"http://.*/none\.tar"):
        index_tars([f"{server.url}/none.tar"], tmp_path / "x", workers=0, pauses_s=())
    assert not (tmp_path / "x" / "dataset.json").exists()
    (tmp_path / "y").mkdir()
    (tmp_path / "y/dataset.json").write_text(json.dumps({"profile": "train"}))
    with pytest.raises(ValueError, match="contains shards of the profile 'train'"):
        index_tars([f"{server.url}/a.tar"], tmp_path / "y", workers=0)
