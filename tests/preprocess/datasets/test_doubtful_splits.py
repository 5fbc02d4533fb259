"""Folders whose names say otherwise than the layout are never taken for classes or left out without a word."""

from functools import partial

import pytest
from PIL import Image

from maskstream.preprocess import DATASETS, make_shards
from maskstream.shards.errors import DatasetError


@pytest.mark.parametrize(
    ("dataset", "files", "doubt"),
    [
        ("k400", ("train_256/abseiling/a.mp4", "val_256/abseiling/b.mp4"), "train_256/, val_256/ in {root} look like"),
        ("folder", ("Train-large/a/1.mp4", "more/1.mp4"), "Train-large/ in {root} look like splits"),
        ("points-folder", ("chair/train/1.npy", "chair/test/2.npy"), "chair/test/, chair/train/ in {root} look like"),
        ("image-folder", ("train/cat/val/1.png",), "train/cat/val/ in {root} look like splits within classes"),
        ("image-folder", ("train/cat/1.png", "dog/2.png"), "dog/ in {root} contain files outside of all splits"),
        ("folder", ("trainers/a.mp4", "valley/b.mp4", "testimony/c.mp4"), ""),
        ("folder", ("train/a/1.mp4", "val/b/2.mp4", "annotations/list.txt"), ""),
        ("folder", ("UCF-101/Punch/v.avi", "ucfTrainTestlist/trainlist01.txt"), "ucfTrainTestlist/trainlist01.txt in"),
        (
            "points-folder",
            ("ShapeNet-55/test.txt", "shapenet_pc/02691156-1.npy"),
            "ShapeNet-55/test.txt in {root} look",
        ),
        ("image-folder", ("cat/1.png", "dog/2.png", "meta/labels.txt", "cat/training day.md"), ""),
        ("folder", ("train/a.mp4", "val/b.mp4"), "none of the 2 videos would have a label. Arrange the videos as"),
        ("audio-folder", ("wavs/a.wav", "wavs/b.wav"), "all 2 audio files would have the same label, 'wavs'. Arrange"),
        ("audio-folder", ("wavs/a.wav",), ""),
        ("txt", ("a.txt", "b.txt"), ""),
        ("mesh-folder", ("a.obj", "b.obj"), ""),
    ],
)
def test_folders_that_make_the_splits_doubtful_are_named(tmp_path, dataset, files, doubt):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = DATASETS[dataset](tmp_path).doubt
    assert found.startswith(doubt.format(root=tmp_path))
    assert bool(found) == bool(doubt)


@pytest.mark.parametrize(
    ("dataset", "lists", "doubt"),
    [
        ("folder", {"list.csv": "path,label\na.mp4,5\nb.mp4,5\n"}, "all 2 videos would have the same label, '5'"),
        ("folder", {"list.csv": "path,label\na.mp4,\nb.mp4,\n"}, ""),
        ("folder", {"list.csv": "path\na.mp4\nb.mp4\n"}, ""),
        ("video-list", {"train.csv": "a.mp4 0 -1\nb.mp4 0 -1\n"}, ""),
        ("video-list", {"train.csv": "a.mp4 0\nb.mp4 0\n"}, "all 2 videos would have the same label, '0'"),
        ("k400", {"train.csv": "youtube_id,time_start,time_end\na,0,10\nb,0,10\n"}, "none of the 2 videos would have"),
    ],
)
def test_labels_that_say_nothing_are_doubtful(tmp_path, dataset, lists, doubt):
    for name in ("a.mp4", "b.mp4", "a_000000_000010.mp4", "b_000000_000010.mp4"):
        (tmp_path / name).touch()
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    found = DATASETS[dataset](tmp_path).doubt
    assert found.startswith(doubt)
    assert bool(found) == bool(doubt)


def test_doubtful_splits_are_refused_unless_they_are_meant(tmp_path):
    for name in ("train_256", "val_256"):
        (tmp_path / "raw" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "raw" / name / "one.png")
    made = partial(make_shards, "image-folder", tmp_path / "raw", tmp_path / "out", workers=0)
    with pytest.raises(DatasetError, match=r"train_256/, val_256/ in .* look like splits.*Rename them.*--as-is"):
        made()
    assert not (tmp_path / "out").exists()
    assert list(made(as_is=True).splits) == ["train"]
