"""A saved position opens the version that it needs, and says so; one that is gone is an error that says what to do."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from maskstream.preprocess.versions import append, erase, remove
from maskstream.shards.errors import ResumeError
from maskstream.shards.format.manifest import Manifest

from ...preprocess.versions.other_keys import with_other_keys
from ..every_modality import MODALITIES, write_split

MODALITY = MODALITIES["image"]


@pytest.fixture
def splits(tmp_path: Path) -> tuple[Path, Path]:
    """A split, and one with other keys to append."""
    one = write_split("image", tmp_path)
    other = tmp_path / "other"
    shutil.copytree(one, other)
    with_other_keys(other)
    return one, other


def opened(split: Path, **options: Any) -> Any:
    settings = {"batch_size": 4, "device": "cpu", "threads": 1, "seed": 5, "rank": 0, "world_size": 1} | options
    return MODALITY.loader(split, **settings)


def rows(loader: Any) -> list[str]:
    return list(map(str, chain.from_iterable(map(MODALITY.rows, loader))))


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_goes_on_with_its_samples_after_an_append(
    workers: int, splits: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    one, other = splits
    with closing(opened(one)) as before:
        first = MODALITY.rows(next(iter(before)))
        state = json.loads(json.dumps(before.state_dict()))
        wanted = rows(before)
    gone = Manifest.load(one).key(0)
    remove(one, [gone])
    append(one, other)
    assert "version" not in caplog.text
    with closing(opened(one, workers=workers)) as after:
        begun = len(after)
        assert len(MODALITY.rows(next(iter(after)))) == len(first)
        after.load_state_dict(state)
        assert len(after) < begun
        found = rows(after)
        assert after.state_dict()["dataset_version"] == 2
        after.load_state_dict(state)
    assert len(found) == len(wanted)
    assert sum(a != b for a, b in zip(found, wanted, strict=True)) <= wanted.count(wanted[0]) + 1
    assert caplog.text.count("opening version 2") == 1
    with closing(opened(one, version=3)) as chosen, pytest.raises(ResumeError, match="Open version 1 of the split"):
        chosen.load_state_dict(state)
    with closing(opened(other)) as foreign, pytest.raises(ResumeError, match="dataset"):
        foreign.load_state_dict(state)


def test_a_version_that_is_gone_is_an_error_that_says_what_to_do(splits: tuple[Path, Path]) -> None:
    one, other = splits
    with closing(opened(one)) as before:
        state = before.state_dict()
    append(one, other)
    erase(one, [Manifest.load(one).key(1)])
    with closing(opened(one)) as after:
        after.load_state_dict(state)
        assert after.state_dict()["dataset_version"] == 1
    (one / "versions" / "1.json").unlink()
    with (
        closing(opened(one)) as after,
        pytest.raises(ResumeError, match=r"version 1 of .*can no longer be opened .*start a new run on the current"),
    ):
        after.load_state_dict(state)
