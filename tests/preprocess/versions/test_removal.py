"""Removed samples appear in no batch, all others where they were, and the split is whole whenever a removal ends."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskstream.preprocess.versions import Removal, remove
from maskstream.shards.errors import RemovedError, ShardError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify

from ...pipelines.every_modality import MODALITIES, write_split
from ...with_new_checksum import renew_checksum
from .killed_forks import check_every_kill


@pytest.fixture
def split(tmp_path: Path) -> Path:
    return write_split("image", tmp_path)


def test_removed_samples_are_refused_and_all_else_stays(split: Path) -> None:
    before = Manifest.load(split)
    keys = before.keys(range(len(before)))
    (name,) = before.components.keys() - {"json"}
    result = remove(split, [keys[3], keys[1]])
    assert result == Removal(version=2, removed=2, removed_in_all=2)
    after = Manifest.load(split)
    assert (after.version, after.removed.tolist()) == (2, [1, 3])
    assert after.fingerprint == before.fingerprint
    assert after.keys(range(len(after))) == keys
    for i in range(len(after)):
        if i in (1, 3):
            with pytest.raises(RemovedError, match=f"{keys[i]}.*was removed"):
                after.member(i, name)
        else:
            assert after.member(i, name) == before.member(i, name)
    assert verify(split).ok
    assert Manifest.load(split, version=1).removed.tolist() == []
    with pytest.raises(ShardError, match=r"there is no versions/3.json in .*; its versions are 1, 2"):
        Manifest.load(split, version=3)


@pytest.mark.parametrize("gone", ["versions/1.json", "versions"])
def test_verify_misses_an_earlier_version(split: Path, gone: str) -> None:
    remove(split, [Manifest.load(split).key(0)])
    (split / gone).rename(split.parent / "gone")
    assert any("there is no versions/1.json" in problem for problem in verify(split).problems)


def test_removals_add_up_and_repeat_nothing(split: Path) -> None:
    keys = Manifest.load(split).keys(range(3))
    remove(split, keys[:1])
    assert remove(split, keys[:1]) == Removal(version=2, removed=0, removed_in_all=1)
    assert remove(split, keys[:2]) == Removal(version=3, removed=1, removed_in_all=2)
    assert sorted(path.name for path in split.glob("removed-*")) == ["removed-000002.parquet", "removed-000003.parquet"]
    assert json.loads((split / "dataset.json").read_text())["counts"]["removed"] == 2


def test_keys_that_are_not_there_change_nothing(split: Path) -> None:
    before = {path: path.read_bytes() for path in split.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"2 of 3 keys are not in .*: 'x', 'y'"):
        remove(split, ["y", "x", Manifest.load(split).key(0)])
    with pytest.raises(ValueError, match="delete the split instead"):
        remove(split, Manifest.load(split).keys(range(len(Manifest.load(split)))))
    assert {path: path.read_bytes() for path in split.rglob("*") if path.is_file()} == before
    with pytest.raises(ShardError, match="no folder"):
        remove(split / "nowhere", ["x"])
    assert not (split / "nowhere").exists()


def test_forged_removals_are_refused(split: Path) -> None:
    remove(split, Manifest.load(split).keys([1]))
    for numbers in ([-1], [3, 2], [2, 2], [1 << 40], [None, 1], ["a"]):
        pq.write_table(pa.table({"sample": numbers}), split / "removed-000002.parquet")
        renew_checksum(split)
        with pytest.raises(ShardError):
            Manifest.load(split)


@pytest.mark.parametrize("kind", list(MODALITIES))
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_resumes_exactly_across_a_removal(kind: str, workers: int, tmp_path: Path) -> None:
    folder, modality = write_split(kind, tmp_path), MODALITIES[kind]
    settings = {"batch_size": 4, "device": "cpu", "threads": 1, "seed": 5, "workers": workers, "rank": 0}
    before = modality.loader(folder, world_size=1, **settings)
    state = before.state_dict()
    rows = list(chain.from_iterable(map(modality.rows, before)))
    before.close()
    shown = before.order.epoch(0).tolist()
    gone = shown[-1]
    remove(folder, [Manifest.load(folder).key(gone)])
    after = modality.loader(folder, world_size=1, **settings)
    after.load_state_dict(json.loads(json.dumps(state)))
    found = list(chain.from_iterable(map(modality.rows, after)))
    after.close()
    assert len(found) == len(rows) == len(shown)
    same = [str(new) == str(old) for old, new in zip(rows, found, strict=True)]
    assert [index for index, equal in zip(shown, same, strict=True) if not equal] == [gone] * shown.count(gone)
    assert after.stats()["bad"] == 0
    assert after.state_dict()["dataset_version"] == 2


@pytest.mark.parametrize(
    "kind", [one if one == "image" else pytest.param(one, marks=pytest.mark.slow) for one in MODALITIES]
)
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_position_keeps_what_is_curated_and_not_what_is_removed(
    kind: str, workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, modality = write_split(kind, tmp_path), MODALITIES[kind]
    settings = {"batch_size": 4, "device": "cpu", "threads": 1, "seed": 5, "workers": workers, "rank": 0}
    begun = modality.loader(folder, world_size=1, **settings)
    state = json.loads(json.dumps(begun.state_dict()))
    rows = list(map(str, chain.from_iterable(map(modality.rows, begun))))
    begun.close()
    shown = begun.order.epoch(0).tolist()

    def changed(**options: int) -> tuple[set[int], int]:
        """The samples in whose slots others stand, and the version in the state."""
        loader = modality.loader(folder, world_size=1, **settings, **options)
        loader.load_state_dict(state)
        found = list(map(str, chain.from_iterable(map(modality.rows, loader))))
        loader.close()
        assert loader.stats()["bad"] == 0
        differ = {index for index, new, old in zip(shown, found, rows, strict=True) if new != old}
        assert differ <= {curated, removed} or kind == "image-text"  # whose texts may be those of others
        return differ & {curated, removed}, loader.state_dict()["dataset_version"]

    curated, removed = shown[-1], shown[-2]
    keys = Manifest.load(folder).keys(range(len(shown)))
    assert remove(folder, [keys[curated]], curation={"began": 1, "asked": {}, "samples": 9, "made": 2}).version == 2
    assert changed() == (set(), 1)
    assert "opening version 1" in caplog.text
    assert changed(version=2) == ({curated}, 2)
    assert remove(folder, [keys[removed]]).version == 3
    assert changed() == ({removed}, 1)
    assert changed(version=3) == ({curated, removed}, 3)
    caplog.clear()
    assert changed(version=1) == (set(), 1)
    assert "contains 1 samples that were removed later" in caplog.text
    assert remove(folder, [keys[curated]]) == Removal(version=4, removed=0, removed_in_all=2)
    assert changed() == ({curated, removed}, 4)
    assert Manifest.load(folder).info["counts"]["removed"] == 2
    assert verify(folder).ok


def test_killed_removals_leave_a_whole_split(split: Path) -> None:
    keys = Manifest.load(split).keys(range(4))

    def check(killed: Path) -> None:
        assert verify(killed).ok

    whole = check_every_kill(split, lambda killed: remove(killed, keys), steps=1, after_kill=check)
    assert Manifest.load(whole).removed.tolist() == [0, 1, 2, 3]
    assert not list(whole.rglob("*.tmp"))
    assert verify(whole).ok
