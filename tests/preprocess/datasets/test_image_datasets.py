"""Raw datasets of pictures as their publishers lay them out."""

from contextlib import closing
from importlib import import_module

import cv2
import numpy as np
import pytest

from maskstream.pipelines import VideoClip, video_loader
from maskstream.preprocess import make_shards
from maskstream.preprocess.datasets.folder import image_folder
from maskstream.preprocess.datasets.image_folders import imagefolder
from maskstream.shards.errors import DatasetError

from ..raw_files import labelled, touch

sample_image = import_module("maskstream.samples.image.sample_image")


def test_any_folder_of_pictures(tmp_path):
    touch(tmp_path, "train/cat/a.JPEG", "train/dog/b.webp", "val/cat/c.png", "train/cat/notes.txt", "train/dog/d.gif")
    dataset = image_folder(tmp_path)
    assert (dataset.name, dataset.modality) == ("image-folder", "image")
    assert labelled(dataset) == {
        "train": [("train/cat/a.JPEG", "cat"), ("train/dog/b.webp", "dog")],
        "val": [("val/cat/c.png", "cat")],
    }


@pytest.mark.parametrize(("name", "channels"), [("a.png", 3), ("b.jpg", 1)])
def test_pictures_become_videos_of_one_frame_which_clips_repeat(tmp_path, name, channels):
    """Cut in their middle to whole blocks of 16 pixels, with their own colours."""
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(0, 256, (4, 5, channels), dtype=np.uint8), (87, 70), interpolation=cv2.INTER_CUBIC)
    (tmp_path / "raw").mkdir()
    cv2.imwrite(str(tmp_path / "raw" / name), smooth)
    make_shards("still-folder", tmp_path / "raw", tmp_path / "out", workers=0, as_is=True)
    clip = VideoClip(frames=4, stride=2, size=64)
    with closing(video_loader(tmp_path / "out/train", clip=clip, batch_size=1, shuffle=False, threads=1)) as loader:
        batch = next(iter(loader))
    video = batch.video[0].numpy()
    assert (video == video[:1]).all()
    stored = cv2.imread(str(tmp_path / "raw" / name))[3:67, 3:83, ::-1]
    assert np.abs(video[0] - stored[:, 8:72].astype(float)).mean() < 4


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_the_layout_of_imagenet(tmp_path, val):
    touch(tmp_path, "train/n02/b.JPEG", "train/n01/a.JPEG", "train/n01/deep/er.JPEG", f"{val}/n02/c.JPEG")
    dataset = imagefolder(tmp_path)
    assert dataset.label_names == ("n01", "n02")
    assert labelled(dataset) == {
        "train": [("train/n01/a.JPEG", "n01"), ("train/n01/deep/er.JPEG", "n01"), ("train/n02/b.JPEG", "n02")],
        "val": [(f"{val}/n02/c.JPEG", "n02")],
    }


def test_a_class_keeps_its_number_where_a_split_lacks_others(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "train/c/3.jpg", "val/c/4.jpg")
    (tmp_path / "train" / "empty").mkdir()
    dataset = imagefolder(tmp_path)
    assert dataset.label_names == ("a", "b", "c", "empty")
    assert [source.label for source in dataset.splits["val"]] == [2]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("cat/a.jpg", "dog/b.jpg"), "there is no folder train"),
        (("train/a.jpg",), "contains no class folders"),
        (("train/cat/a.jpg", "val/cow/b.jpg"), "has 1 classes that train does not have, such as 'cow'"),
        (("train/cat/a.txt",), "the split 'train' lists 0 image files"),
    ],
)
def test_another_layout_is_refused(tmp_path, names, message):
    touch(tmp_path, *names)
    with pytest.raises(DatasetError, match=message):
        imagefolder(tmp_path)


def test_windows_lie_inside_a_photograph_and_cover_it():
    for photograph in sample_image.PHOTOGRAPHS:
        boxes = sample_image.windows(photograph.width, photograph.height)
        assert 9 <= len(boxes) <= 1.4 * sample_image.WINDOWS
        assert len(set(boxes)) == len(boxes)
        assert min(x for x, *_ in boxes) == min(y for _, y, *_ in boxes) == 0
        right, bottom = max(x + w for x, _, w, _ in boxes), max(y + h for _, y, _, h in boxes)
        step = min(b[0] for b in boxes if b[0] > 0)
        assert photograph.width - step < right <= photograph.width
        assert photograph.height - step < bottom <= photograph.height


def test_no_photograph_is_in_both_splits_and_each_label_is(tmp_path, monkeypatch):
    def fetched(package, members, root):
        paths = {}
        for member in members:
            photograph = next(p for p in sample_image.PHOTOGRAPHS if p.member == member)
            paths[member] = root / package.folder / member.rpartition("/")[2]
            paths[member].parent.mkdir(parents=True, exist_ok=True)
            pixels = np.full((photograph.height, photograph.width, 3), 9, np.uint8)
            cv2.imwrite(str(paths[member]), pixels)
        return paths

    monkeypatch.setattr(sample_image, "fetch", fetched)
    dataset = sample_image.sample_image(tmp_path / "raw")
    assert dataset.modality == "image"
    photographs = {split: {source.path for source in sources} for split, sources in dataset.splits.items()}
    assert not photographs["train"] & photographs["val"]
    labels = {split: {source.label for source in sources} for split, sources in dataset.splits.items()}
    assert labels["train"] == labels["val"] == set(range(6))
    assert len({source.id for sources in dataset.splits.values() for source in sources}) == sum(
        len(sources) for sources in dataset.splits.values()
    )
