"""A merged split gives what its splits give, one after the other, from wherever they are, and copies no tar."""

from __future__ import annotations

import json
import pickle
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.preprocess.job.verification import repair_split, verify_split
from maskstream.preprocess.versions import Appended, Merged, append, erase, merge, remove
from maskstream.shards.errors import DatasetError, ShardError, StoreError
from maskstream.shards.format.dataset import read_dataset_json
from maskstream.shards.format.inspect import inspect
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.rejects import read_rejects
from maskstream.shards.format.verify import verify
from maskstream.shards.stores.base import Range
from maskstream.shards.stores.folders import FoldersStore, joined, seen_from
from maskstream.shards.stores.local import LocalStore

from ...pipelines.every_modality import MODALITIES, write_split
from ...web_server import serving
from ...with_new_checksum import renew_checksum
from .killed_forks import check_every_kill
from .other_keys import with_other_keys
from .small_splits import contents, written


def test_samples_are_those_of_the_splits_in_their_order(tmp_path: Path) -> None:
    one, other = written(tmp_path / "a" / "train", 0), written(tmp_path / "b", 100, dataset="other")
    remove(other, ["k101"])
    out = tmp_path / "c" / "all"
    before = contents(one) | contents(other)
    assert merge(out, [one, other]) == Merged(version=1, samples=12, shards=4)
    assert contents(one) | contents(other) == before
    assert sorted(contents(out)) == [
        "dataset.json",
        "rejects-000001.parquet",
        "removed-000001.parquet",
        "versions/1.json",
    ]
    assert verify(out).problems == []
    assert verify_split(out, workers=0).problems == []
    found = Manifest.load(out)
    assert found.keys(range(12)) == [*(f"k{i}" for i in range(6)), *(f"k{i}" for i in range(100, 106))]
    assert found.shard_names[::3] == ["../../a/train/toy-000000.tar", "../../b/other-000001.tar"]
    assert found.removed.tolist() == [7]
    assert found.info["dataset"] == "toy+other"
    assert found.info["sums"]["ones"] == [12.0, pytest.approx(1.2)]
    assert [reject.source for reject in read_rejects(LocalStore(out), found.info)] == ["r0", "r100"]
    assert found.sources().to_pylist()[6] == "s100"
    single = [Manifest.load(one), Manifest.load(other)]
    for i in (0, 5, 6, 11):
        mine, theirs = found.member(i, "json"), single[i // 6].member(i % 6, "json")
        assert found.store.read(*mine) == single[i // 6].store.read(*theirs)
    ranges = [found.member(i, "json") for i in (11, 0, 6, 3)]
    assert found.store.read_many(ranges) == [found.store.read(*one) for one in ranges]
    copy = pickle.loads(pickle.dumps(found))
    assert isinstance(copy.store, FoldersStore)
    assert copy.store.read(*ranges[0]) == found.store.read(*ranges[0])
    assert inspect(out)["counts"]["samples"] == 12


def test_a_merged_split_is_removed_from_appended_to_merged_and_moved(tmp_path: Path) -> None:
    one, other, third = (written(tmp_path / name, first) for name, first in (("a", 0), ("b", 100), ("c", 200)))
    out = tmp_path / "out"
    merge(out, [one, other])
    first = Manifest.load(out)
    remove(out, ["k4"])
    assert (Manifest.load(one).version, Manifest.load(out).removed.tolist()) == (1, [4])
    assert append(out, third) == Appended(version=3, samples=6, shards=2)
    assert (out / "toy-000002.tar").exists()
    assert verify(out).problems == []
    whole = tmp_path / "whole"
    shutil.copytree(written(tmp_path / "d", 300), whole)
    append(whole, out)
    assert verify(whole).problems == []
    assert Manifest.load(whole).keys([6, 12, 18]) == ["k0", "k100", "k200"]
    nested = tmp_path / "deep" / "nested"
    assert merge(nested, [out, written(tmp_path / "e", 400)]) == Merged(version=1, samples=24, shards=8)
    assert verify(nested).problems == []
    with pytest.raises(DatasetError, match="is a split with its own shards"):
        merge(out, [one, other])
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("a", "b", "c", "out"):
        shutil.move(tmp_path / name, moved / name)
    assert verify(moved / "out").problems == []
    assert Manifest.load(moved / "out", version=1).fingerprint == first.fingerprint


def test_the_same_merge_again_changes_nothing_until_its_splits_change(tmp_path: Path) -> None:
    one, other = written(tmp_path / "a", 0), written(tmp_path / "b", 100)
    out = tmp_path / "out"
    merge(out, [one, other])
    before = contents(out)
    assert merge(out, [one, other]).version == 1
    assert contents(out) == before
    append(one, written(tmp_path / "c", 200))
    assert len(Manifest.load(out)) == 12
    assert merge(out, [one, other]) == Merged(version=2, samples=18, shards=6)
    assert len(Manifest.load(out, version=1)) == 12
    assert verify(out).problems == []
    shutil.rmtree(other)
    with pytest.raises(ShardError, match="rerun the `maskstream merge`"):
        Manifest.load(out)
    assert not verify(out).ok
    assert merge(out, [one, written(tmp_path / "d", 300)]).version == 3
    assert verify(out).problems == []
    with pytest.raises(ShardError, match="its versions are 3"):
        Manifest.load(out, version=1)


def test_what_was_removed_from_it_stays_removed_when_its_splits_change(tmp_path: Path) -> None:
    one, other = written(tmp_path / "a", 0), written(tmp_path / "b", 100)
    out = tmp_path / "out"
    merge(out, [one, other])
    remove(out, ["k101"])

    def removed() -> set[str]:
        found = Manifest.load(out)
        assert found.info["counts"]["removed"] == len(found.removed)
        assert verify(out).problems == []
        return {*found.keys(found.removed.tolist())}

    assert merge(out, [one, other]).version == 2
    assert removed() == {"k101"}
    remove(one, ["k3"])
    assert merge(out, [one, other]).version == 3
    assert removed() == {"k101", "k3"}
    append(one, written(tmp_path / "more", 50))  # the numbers of b's samples move
    assert merge(out, [one, other]).version == 4
    assert removed() == {"k101", "k3"}
    erase(other, ["k104"])
    merge(out, [one, other])
    assert len(removed()) == 3
    assert removed() >= {"k101", "k3"}
    assert "k104" not in removed()  # its key is gone too
    remove(out, ["k0"])
    merge(out, [other, one])  # in another order
    assert len(removed()) == 4
    assert removed() >= {"k101", "k3", "k0"}
    append(one, written(tmp_path / "again", 70))
    erase(other, ["k105"])
    with pytest.raises(DatasetError, match="removed samples, and its splits have gained or lost samples since"):
        merge(out, [other, one])


def test_killed_at_every_step_it_ends_in_the_same_files(tmp_path: Path) -> None:
    base = tmp_path / "base"
    splits = [written(base / "a", 0), written(base / "b", 100)]
    remove(splits[0], ["k3"])
    merge(base / "out", splits)
    erase(splits[0], ["k1"])

    def run(place: Path) -> None:
        merge(place / "out", [place / "a", place / "b"])

    check_every_kill(base, run, steps=4, read=lambda place: contents(place / "out"))


def test_what_does_not_fit_is_refused_with_what_differs(tmp_path: Path) -> None:
    one = written(tmp_path / "a", 0)
    out = tmp_path / "out"
    for number, (first, changes, match) in enumerate(
        (
            (100, {"modality": "video"}, "has the modality 'video', but .* has 'image'"),
            (100, {"profile": "q"}, "has the profile 'q'"),
            (100, {"settings": {"encoder": {"size": 3}}}, "was encoded with {'size': 3}, but"),
            (100, {"names": ("x", "z")}, r"has the labels 'x', 'z' \(2\), but .* has 'x', 'y' \(2\)"),
            (4, {}, "2 keys are in more than one split, for example 'k4' in both .*/a and .*/b4: 'k4', 'k5'"),
        )
    ):
        other = written(tmp_path / f"b{number}", first, **changes)  # type: ignore[arg-type]
        with pytest.raises(DatasetError, match=match):
            merge(out, [one, other])
    with pytest.raises(ValueError, match="a merge needs at least two"):
        merge(out, [one])
    with pytest.raises(ValueError, match="can only refer to folders on the same server or in the same bucket"):
        merge("s3://bucket/all", [one, written(tmp_path / "z", 900)])
    assert not out.exists()


def test_damage_is_found_where_it_is_and_repaired_there(tmp_path: Path) -> None:
    one, other = written(tmp_path / "a", 0), written(tmp_path / "b", 100)
    out = tmp_path / "out"
    merge(out, [one, other])
    (other / "toy-000001.idx").unlink()
    (one / "toy-000000.sums").write_bytes(b"x")
    assert sorted(verify(out).problems) == [
        "../a/toy-000000.tar: its sums file ../a/toy-000000.sums differs from the sums of its blocks",
        "../b/toy-000001.tar: its index ../b/toy-000001.idx is missing",
    ]
    assert "repair those" in repair_split(out).beyond[0]


def test_forged_names_lead_nowhere(tmp_path: Path) -> None:
    one, other = written(tmp_path / "a", 0), written(tmp_path / "b", 100)
    out = tmp_path / "out"
    merge(out, [one, other])
    info = read_dataset_json(out)
    for folder in ("/tmp", "a", "..\0", "x/../..", "ftp://h", "~", "https://u:p@h/x", "s3://"):
        part = info["parts"][0] | {"name": f"{folder}/manifest-000000.parquet"}
        files = info["files"] | {part["name"]: info["files"][info["parts"][0]["name"]]}
        renew_checksum(out, parts=[part, info["parts"][1]], files=files)
        with pytest.raises(ShardError):
            Manifest.load(out)
    with pytest.raises(StoreError, match="a different server or bucket"):
        joined("https://a.example/x", "https://b.example/y")
    with pytest.raises(StoreError, match="outside its server or bucket"):
        joined("s3://bucket/x", "../../y")
    with pytest.raises(StoreError, match="outside its server or bucket"):
        joined("hf://datasets/a/b/x", "../../c")


@pytest.mark.parametrize(
    ("home", "target", "folder", "back"),
    [
        ("s3://b/x/all", "s3://b/x/a", "../a", None),
        ("s3://b/all", "s3://b/all/a", "./a", None),
        ("https://h:1/d/all", "https://h:1/e/a/", "../../e/a", "https://h:1/e/a"),
        ("hf://datasets/o/n/all", "hf://datasets/o/n/a", "hf://datasets/o/n/a", None),
    ],
)
def test_urls_are_named_from_urls(home: str, target: str, folder: str, back: str | None) -> None:
    assert seen_from(home, target) == folder
    assert joined(home, folder) == (back or target)


@pytest.mark.parametrize(("kind", "workers"), [("points", 0), pytest.param("video", 1, marks=pytest.mark.slow)])
def test_a_loader_reads_it_from_folders_and_urls_with_a_cache(kind: str, workers: int, tmp_path: Path) -> None:
    modality = MODALITIES[kind]
    served = tmp_path / "served"
    one = write_split(kind, served)
    other = served / "copy"
    shutil.copytree(one, other)
    with_other_keys(other)
    copied = tmp_path / "copied"
    shutil.copytree(one, copied)
    append(copied, other)

    def rows(location: str | Path, **options: Any) -> list[Any]:
        settings = {"seed": 5, "threads": 2, "device": "cpu", "batch_size": 4} | options
        with closing(modality.loader(location, **settings)) as loader:
            return [modality.rows(batch) for batch in loader]

    wanted = rows(copied)
    merge(served / "all", [one, other])
    assert rows(served / "all") == wanted
    with serving(served) as server:
        urls = [f"{server.url}/{path.relative_to(served)}" for path in (one, other)]
        assert rows(f"{server.url}/all") == wanted
        cache = tmp_path / "cache"
        merge(tmp_path / "here", urls)
        assert rows(tmp_path / "here", cache=cache, workers=workers) == wanted
        server.requests.clear()
        assert rows(tmp_path / "here", cache=cache) == wanted
        tars = {r.name for r in server.requests if r.name.endswith(".tar")}
        assert not tars
        fetched = CliRunner().invoke(app, ["fetch", f"{server.url}/all", "--cache", str(tmp_path / "other cache")])
        assert fetched.exit_code == 0, fetched.output
        server.requests.clear()
        assert rows(f"{server.url}/all", cache=tmp_path / "other cache") == wanted
        assert not {r.name for r in server.requests if r.name.endswith(".tar")}
        with pytest.raises(ValueError, match="is local; leave it out"):
            rows(copied, cache=cache)
        assert verify(f"{server.url}/all").problems == []


def test_ranges_are_announced_to_the_store_of_their_folder(tmp_path: Path) -> None:
    one, other = written(tmp_path / "a", 0), written(tmp_path / "b", 100)
    merge(tmp_path / "out", [one, other])
    with serving(tmp_path) as server:
        found = Manifest.load(f"{server.url}/out")
        ranges = [found.member(0, "json"), found.member(11, "json")]
        announced = found.store.announce(ranges)
        assert json.loads(found.store.read(*ranges[1]))["number"] == 105
        assert found.store.read(*ranges[0]) == Manifest.load(one).store.read(*ranges[0]._replace(name="toy-000000.tar"))
        announced.drop()
        with pytest.raises(StoreError):
            found.store.read(*Range("../a/nothing.tar", 0, 1))
