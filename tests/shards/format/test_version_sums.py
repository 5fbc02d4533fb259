"""Another file has a checksum of every description of a version: a change of one is told when it is opened."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from maskstream.preprocess.versions import append, divide, erase, remove
from maskstream.shards.checksummed import CHECKSUM, add_checksum
from maskstream.shards.errors import ShardError
from maskstream.shards.format.dataset import VERSIONS, read_dataset_json
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify

from ...preprocess.versions.small_splits import written

CHANGES: dict[str, Any] = {
    "label_names": lambda info: info["label_names"][::-1],
    "parts": lambda info: info["parts"][::-1],
    "counts": lambda info: info["counts"] | {"samples": 1},
    "version": lambda info: info["version"] % 4 + 1,
    "removed": lambda info: "removed-000002.parquet",
    VERSIONS: lambda info: {},
    "fingerprint": lambda info: "0" * 32,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("four")
    train = written(folder / "train", 0, n=12)
    remove(train, ["k3"])
    append(train, written(folder / "other", 100))
    divide(train, 0.25, out=folder / "val")
    return folder


@pytest.fixture
def split(made: Path, tmp_path: Path) -> Path:
    """A split of four versions, with one that is held out of it."""
    return shutil.copytree(made, tmp_path / "four") / "train"


def rewrite(path: Path, *without: str, **changes: Any) -> None:
    """Change fields of a description; its checksum of itself is right."""
    fields = json.loads(path.read_bytes()) | changes
    path.write_bytes(add_checksum({name: one for name, one in fields.items() if name not in (CHECKSUM, *without)}))


def shown(split: Path, version: int | None) -> object:
    """What decides what a loader shows of a version."""
    found = Manifest.load(split, version=version)
    return found.keys(range(len(found))), found.label.tolist(), found.removed.tolist(), found.info["label_names"]


@pytest.mark.parametrize("field", CHANGES)
@pytest.mark.parametrize("name", ["dataset.json", *(f"versions/{number}.json" for number in range(1, 5))])
def test_a_changed_description_is_told_by_loaders_and_verify(split: Path, name: str, field: str) -> None:
    assert (verify(split).problems, verify(split).unchecked) == ([], [])
    before = {version: shown(split, version) for version in (None, 1, 2, 3, 4)}
    info = json.loads((split / name).read_text())
    value = CHANGES[field](info)
    if value == info.get(field):
        return
    rewrite(split / name, **{field: value})
    assert not verify(split).ok
    for version, truth in before.items():
        with suppress(ShardError):
            assert shown(split, version) == truth, version


def test_another_version_does_not_stand_for_one(split: Path) -> None:
    (split / "versions/1.json").write_bytes((split / "versions/2.json").read_bytes())
    with pytest.raises(ShardError, match=r"versions/1.json describes version 2"):
        Manifest.load(split, version=1)
    assert not verify(split).ok


def test_a_split_of_an_earlier_release_stays_readable(split: Path) -> None:
    """Its files have no checksums of others; the next version has one of each."""
    for path in (split / "dataset.json", *(split / "versions").iterdir()):
        rewrite(path, VERSIONS)
    report = verify(split)
    assert report.ok
    assert report.unchecked == ["dataset.json", "versions/1.json", "versions/2.json", "versions/3.json"]
    for version in (None, 1, 2, 3, 4):
        shown(split, version)
    remove(split, ["k4"])
    report = verify(split)
    assert (report.problems, report.unchecked) == ([], [])
    assert sorted(read_dataset_json(split)[VERSIONS]) == ["1", "2", "3", "4"]
    rewrite(split / "versions/1.json", label_names=["y", "x"])
    with pytest.raises(ShardError, match=r"versions/1.json does not match its description in dataset.json"):
        Manifest.load(split, version=1)


def test_an_erasure_renews_the_checksums(split: Path) -> None:
    erase(split, ["k5"])
    assert (verify(split).problems, verify(split).unchecked) == ([], [])
    held_out = verify(split.with_name("val"))
    assert (held_out.problems, held_out.unchecked) == ([], [])
    sums = read_dataset_json(split)[VERSIONS]
    assert {number: len(own) for number, own in sums.items()} == dict.fromkeys("1234", 1)
