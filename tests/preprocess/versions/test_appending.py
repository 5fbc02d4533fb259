"""An appended split is whole, keeps what was there, and is there only when all of it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskstream.preprocess.versions import Appended, append, remove
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.dataset import read_dataset_json
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.rejects import read_rejects
from maskstream.shards.format.verify import verify
from maskstream.shards.stores.local import LocalStore

from .killed_forks import check_every_kill
from .small_splits import contents, written


def test_both_are_there_and_the_first_version_stays(tmp_path: Path) -> None:
    ours = written(tmp_path / "a", 0)
    theirs = written(tmp_path / "b", 100, ("y", "z"), dataset="other")
    before = contents(ours)
    first = Manifest.load(ours)
    remove(theirs, ["k101"])
    assert append(ours, theirs) == Appended(version=2, samples=6, shards=2)
    assert verify(ours).problems == []
    after = Manifest.load(ours)
    assert after.keys(range(12)) == [*(f"k{i}" for i in range(6)), *(f"k{i}" for i in range(100, 106))]
    assert after.info["label_names"] == ["x", "y", "z"]
    assert after.label.tolist() == [0, 1] * 3 + [1, 2] * 3
    assert after.shard_names == [f"toy-{number:06d}.tar" for number in range(4)]
    assert after.removed.tolist() == [7]
    assert (after.info["counts"]["samples"], after.info["counts"]["rejects"]) == (12, 2)
    assert after.info["sums"] == {"ones": [12.0, pytest.approx(1.2)]}
    assert [reject.source for reject in read_rejects(LocalStore(ours), after.info)] == ["r0", "r100"]
    assert after.sources().to_pylist()[6] == "s100"
    assert after.fingerprint != first.fingerprint
    assert Manifest.load(ours, version=1).fingerprint == first.fingerprint
    kept = contents(ours)
    assert {name: kept[name] for name in before if name != "dataset.json"} == {
        name: data for name, data in before.items() if name != "dataset.json"
    }
    assert append(ours, written(tmp_path / "c", 200)).version == 3
    assert verify(ours).ok


def test_what_does_not_fit_is_refused_with_what_differs(tmp_path: Path) -> None:
    ours = written(tmp_path / "a", 0)
    before = contents(ours)
    for number, (first, changes, match) in enumerate(
        (
            (100, {"modality": "video"}, "has the modality 'video', but .* has 'image'"),
            (100, {"profile": "q"}, "has the profile 'q'"),
            (100, {"settings": {"encoder": {"size": 3}}}, "was encoded with {'size': 3}, but"),
            (100, {"names": ()}, "must both name their labels, or neither"),
            (4, {}, "2 keys are in more than one split, for example 'k4' in both .*a and .*b4: 'k4', 'k5'"),
        )
    ):
        theirs = written(tmp_path / f"b{number}", first, **changes)  # type: ignore[arg-type]
        with pytest.raises(DatasetError, match=match):
            append(ours, theirs)
    assert contents(ours) == before


def test_an_append_that_was_killed_when_all_was_written_is_done(tmp_path: Path) -> None:
    ours, theirs = written(tmp_path / "a", 0), written(tmp_path / "b", 100)
    first = append(ours, theirs)
    before = contents(ours)
    assert append(ours, theirs) == first == Appended(version=2, samples=6, shards=2)
    assert contents(ours) == before
    append(ours, written(tmp_path / "c", 200))
    with pytest.raises(DatasetError, match="6 keys are in more than one split"):
        append(ours, theirs)


def test_splits_without_names_of_labels_keep_their_numbers(tmp_path: Path) -> None:
    ours, theirs = written(tmp_path / "a", 0, ()), written(tmp_path / "b", 100, ())
    append(ours, theirs)
    assert Manifest.load(ours).label.tolist() == [*range(6), *range(6)]


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_append_changes_nothing_and_is_made_again(every: int, tmp_path: Path) -> None:
    theirs, ours = written(tmp_path / "b", 1000, n=12), written(tmp_path / "a", 0)

    def check(split: Path) -> None:
        found = Manifest.load(split)
        assert len(found) == {1: 6, 2: 18}[found.version]
        if found.version == 1:
            assert read_dataset_json(split)["counts"]["shards"] == 2

    assert verify(
        check_every_kill(ours, lambda split: append(split, theirs), steps=8, every=every, after_kill=check)
    ).ok
