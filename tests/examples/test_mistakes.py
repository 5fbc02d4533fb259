"""The most likely mistakes of the first hour, and what their messages say to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from k400_parts import write_k400
from obstore.exceptions import GenericError

from maskstream.preprocess import make_shards
from maskstream.shards import DatasetError, OutageError
from maskstream.shards.stores.client import store_errors


def kinetics(root: Path) -> None:
    for name in ("one", "two"):
        (root.parent / f"{name}.mp4").write_bytes(b"a video")
    write_k400(root, {"train": [("yoga", root.parent / "one.mp4"), ("zumba", root.parent / "two.mp4")]})


def audioset(root: Path) -> None:
    (root / "metadata").mkdir(parents=True)
    (root / "metadata/class_labels_indices.csv").touch()


def lerobot(root: Path) -> None:
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").touch()


def meshgraphnets(root: Path) -> None:
    root.mkdir()
    (root / "meta.json").touch()


@pytest.mark.parametrize(
    ("dataset", "layout", "has"),
    [
        ("k400", kinetics, "annotations/train.csv"),
        ("audioset", audioset, "metadata/class_labels_indices.csv"),
        ("lerobot", lerobot, "meta/info.json"),
        ("meshgraphnets", meshgraphnets, "meta.json"),
    ],
)
def test_a_folder_too_high_up_names_the_right_one(
    dataset: str, layout: Callable[[Path], None], has: str, tmp_path: Path
) -> None:
    layout(tmp_path / "mine")
    with pytest.raises(DatasetError) as caught:
        make_shards(dataset, tmp_path, tmp_path / "out", workers=0)
    assert f"{tmp_path / 'mine'} has {has}: pass that folder as ROOT (--root). Get " in str(caught.value)


def test_parts_of_kinetics_without_lists_are_not_taken_for_classes(tmp_path: Path) -> None:
    kinetics(tmp_path / "mine")
    shutil.rmtree(tmp_path / "mine/annotations")
    with pytest.raises(DatasetError, match=r"k400_targz/train/ in .* or add the missing lists of the splits to"):
        make_shards("k400", tmp_path / "mine", tmp_path / "out", workers=0)


def test_a_doubt_about_data_in_archives_names_the_folder_that_was_given(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    kinetics(root)
    with pytest.raises(DatasetError, match=r"look like lists of splits") as caught:
        make_shards("folder", root, tmp_path / "out", workers=0)
    assert f"annotations/train.csv in {root} look" in str(caught.value)
    assert "maskstream-raw" not in str(caught.value)


def test_a_name_that_is_not_similar_is_looked_up_in_what_the_datasets_say(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'kinetics' is not a known dataset, did you mean 'k400' or 'k600' or 'k700'"):
        make_shards("kinetics", tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("url", "key"),
    [("s3://b/k400", "AWS_ACCESS_KEY_ID"), ("gs://b/k400", "GOOGLE_APPLICATION_CREDENTIALS")],
)
def test_without_keys_the_message_says_which_to_export(url: str, key: str) -> None:
    with pytest.raises(OutageError, match=rf"no credentials were found for {url} .*; export {key}"), store_errors(url):
        raise GenericError("Generic error: PUT http://169.254.169.254/latest/api/token: timed out")
