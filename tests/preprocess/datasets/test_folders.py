"""Links to folders: loops end, every real folder is visited once, and which of its names is kept does not change."""

import os
import time
from itertools import permutations
from pathlib import Path

import pytest

from maskstream.preprocess.datasets import DATASETS
from maskstream.preprocess.datasets.folders import list_distinct_folders, list_media
from maskstream.shards.errors import DatasetError, OutageError

from ..raw_files import put

SUFFIXES = {".mp4"}


def names(root):
    return [path.relative_to(root).as_posix() for path in list_media(root, SUFFIXES)]


@pytest.mark.parametrize("loops", [1, 2, 5])
@pytest.mark.parametrize("target", ["..", ".", "../..", "/"])
def test_loops_end_without_duplicates(tmp_path, loops, target):
    """One link to the parent gave 41 copies of a clip, two never ended. The parent's other files are not the root's."""
    root = tmp_path / "root"
    put(root / "run" / "a.mp4")
    put(tmp_path / "outside" / "secret.mp4")
    for number in range(loops):
        os.symlink(target, root / "run" / f"loop{number}")
    began = time.monotonic()
    assert names(root) == ["run/a.mp4"]
    dataset = DATASETS["folder"](root)
    assert time.monotonic() - began < 1
    assert [(source.id, source.label) for source in dataset.splits["train"]] == [("run/a.mp4", 0)]
    assert dataset.label_names == ("run",)


def test_folders_that_link_to_each_other(tmp_path):
    for name in "abc":
        put(tmp_path / name / f"{name}.mp4")
        for other in "abc":
            os.symlink(f"../{other}", tmp_path / name / f"to_{other}")
    assert names(tmp_path) == ["a/a.mp4", "b/b.mp4", "c/c.mp4"]


def test_a_folder_elsewhere_is_visited_once_under_its_first_name(tmp_path):
    """In whatever order the file system lists the links."""
    put(tmp_path / "elsewhere" / "deep" / "a.mp4")
    for n, order in enumerate(permutations(["x", "y", "z"])):
        root = tmp_path / f"root{n}"
        root.mkdir()
        for name in order:
            os.symlink(tmp_path / "elsewhere", root / name)
        os.symlink(tmp_path / "elsewhere" / "deep", root / "aa")
        assert names(root) == ["aa/a.mp4"]  # visited first, so x does not hold it again


def test_a_real_folder_keeps_its_own_name(tmp_path):
    put(tmp_path / "zebra" / "a.mp4")
    os.symlink("zebra", tmp_path / "aardvark")
    assert names(tmp_path) == ["zebra/a.mp4"]
    assert list_distinct_folders(tmp_path.iterdir()) == [tmp_path / "zebra"]


def test_links_to_files_and_broken_links(tmp_path):
    put(tmp_path / "a.mp4")
    os.symlink("a.mp4", tmp_path / "b.mp4")
    os.symlink("nothing.mp4", tmp_path / "c.mp4")
    os.symlink("d.mp4", tmp_path / "d.mp4")
    assert names(tmp_path) == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    dataset = DATASETS["folder"](tmp_path)
    assert [source.id for source in dataset.splits["train"]] == ["a.mp4", "b.mp4"]
    assert [reject.source for reject in dataset.missing["train"]] == ["c.mp4", "d.mp4"]


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    put(tmp_path / "run" / "a.mp4")
    real = os.scandir

    def scandir(path):
        if Path(path).name == "run":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(OutageError, match=r"run cannot be listed \(Permission denied\); make it readable"):
        list_media(tmp_path, SUFFIXES)


@pytest.mark.parametrize(("name", "suffix"), [("folder", "mp4"), ("imagefolder", "png")])
def test_no_file_is_in_two_splits(tmp_path, name, suffix):
    put(tmp_path / "train" / "run" / f"a.{suffix}")
    put(tmp_path / "val" / "run" / f"b.{suffix}")
    os.symlink("../../val/run", tmp_path / "train" / "run" / "more")
    os.symlink("../..", tmp_path / "train" / "run" / "up")
    dataset = DATASETS[name](tmp_path)
    found = {split: [source.id for source in sources] for split, sources in dataset.splits.items()}
    assert found == {"train": [f"train/run/a.{suffix}"], "val": [f"val/run/b.{suffix}"]}
    (tmp_path / "test").symlink_to("train")
    with pytest.raises(DatasetError, match="are the same folder"):
        DATASETS[name](tmp_path)


def test_a_linked_category_is_no_second_one(tmp_path):
    for split in ("train", "test"):
        put(tmp_path / "ModelNet40" / "chair" / split / f"{split}.off")
    os.symlink("chair", tmp_path / "ModelNet40" / "armchair")
    dataset = DATASETS["modelnet40"](tmp_path)
    assert dataset.label_names == ("chair",)
    assert [source.id for source in dataset.splits["train"]] == ["chair/train/train.off"]


def test_a_linked_speaker_is_no_second_one(tmp_path):
    chapter = tmp_path / "train-clean-100" / "19" / "198"
    put(chapter / "19-198-0000.flac")
    (chapter / "19-198.trans.txt").write_text("19-198-0000 NORTHANGER ABBEY\n")
    os.symlink("19", tmp_path / "train-clean-100" / "18")
    os.symlink("train-clean-100", tmp_path / "dev-clean")
    dataset = DATASETS["librispeech"](tmp_path)
    assert {split: [source.id for source in sources] for split, sources in dataset.splits.items()} == {
        "train": ["train-clean-100/19/198/19-198-0000.flac"]
    }


@pytest.mark.parametrize(
    ("name", "folder", "file"), [("folder", "\udcff", "a.mp4"), ("imagefolder", "train/\udcff", "a.png")]
)
def test_names_that_are_no_utf8(tmp_path, name, folder, file):
    put(tmp_path / folder / file)
    dataset = DATASETS[name](tmp_path)
    [source] = dataset.splits["train"]
    assert (source.id, dataset.label_names) == (f"{folder}/{file}".replace("\udcff", "\\xff"), ("\\xff",))
    assert source.path.is_file()
