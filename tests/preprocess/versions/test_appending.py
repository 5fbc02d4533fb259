"""An appended split is whole, keeps what was there, and is there only when all of it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from maskstream.preprocess.versions import Appended, append, remove
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.dataset import read_dataset_json
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.rejects import read_rejects
from maskstream.shards.format.verify import verify
from maskstream.shards.stores.local import LocalStore

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
            (100, {"modality": "video"}, "has the modality 'video', and .* has 'image'"),
            (100, {"profile": "q"}, "has the profile 'q'"),
            (100, {"settings": {"encoder": {"size": 3}}}, "was encoded with {'size': 3}, and"),
            (100, {"names": ()}, "must both name their labels, or neither"),
            (4, {}, "2 keys are in more than one split, 'k4' in both .*a and .*b4: 'k4', 'k5'"),
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


SCRIPT = """
import sys
from maskstream.preprocess.versions import append
append(sys.argv[1], sys.argv[2])
"""


@pytest.mark.slow
def test_a_killed_append_changes_nothing_and_is_made_again(tmp_path: Path) -> None:
    theirs = written(tmp_path / "b", 1000, n=60)
    whole = written(tmp_path / "whole", 0)
    append(whole, theirs)
    rng = np.random.default_rng(0)
    killed = 0
    for number in range(8):
        ours = written(tmp_path / f"a{number}", 0)
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(ours), str(theirs)])
        try:
            process.wait(timeout=float(rng.uniform(0.3, 1.2)))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
        found = Manifest.load(ours)
        assert len(found) == {1: 6, 2: 66}[found.version]
        if found.version == 1:
            assert read_dataset_json(ours)["counts"]["shards"] == 2
            append(ours, theirs)
        assert contents(ours) == contents(whole)
        assert verify(ours).ok
    assert killed
