"""Pictures with texts of the same name: tars as img2dataset writes them, and folders."""

import io
import json
import tarfile

import cv2
import numpy as np
import pytest

from maskstream.preprocess import DATASETS, make_shards
from maskstream.preprocess.job.shards import dataset_in
from maskstream.preprocess.raw.tree import raw_tree
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.manifest import Manifest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MASKSTREAM_CACHE", str(tmp_path_factory.mktemp("cache")))


def picture(n):
    return bytes(cv2.imencode(".jpg", np.full((20, 24, 3), 8 * n, np.uint8))[1])


def write_tar(path, numbers):
    """A shard of img2dataset."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for n in numbers:
            key = f"{n:09d}"
            about = {"caption": f"a picture {n}", "url": f"https://x/{n}.jpg", "width": 24, "exif": {}, "sha256": "0"}
            members = {"jpg": picture(n), "txt": f"a picture\n{n}".encode(), "json": json.dumps(about).encode()}
            for ending, data in members.items():
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def test_tars_of_img2dataset(tmp_path):
    for shard in range(2):
        write_tar(tmp_path / f"laion/{shard:05d}.tar", range(10 * shard, 10 * shard + 6))
        (tmp_path / f"laion/{shard:05d}_stats.json").write_text("{}")
    with raw_tree(tmp_path / "laion") as tree:
        sources = dataset_in(tree, DATASETS["image-text-folder"]).splits["train"]
    assert [(one.id, one.meta["caption"], one.meta["width"]) for one in sources[5:7]] == [
        ("000000005.jpg", "a picture 5", 24),
        ("000000010.jpg", "a picture 10", 24),
    ]
    words = {"settings": ["tokenizer=train:bpe:300"], "workers": 0}
    report = make_shards("image-text-folder", tmp_path / "laion", tmp_path / "out", **words)
    assert report.splits["train"].counts["samples"] == 12
    manifest = Manifest.load(tmp_path / "out/train")
    assert (manifest.info["modality"], manifest.label.tolist()) == ("image-text", [-1] * 12)


def test_folders_and_pictures_without_a_text(tmp_path):
    for name in ("train/a/1", "train/2", "val/3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.jpg").write_bytes(picture(1))
    (tmp_path / "train/a/1.txt").write_text("one")
    (tmp_path / "val/3.json").write_text('{"caption": "three"}')
    found = DATASETS["image-text-folder"](tmp_path)
    assert {split: [one.meta["caption"] for one in some] for split, some in found.splits.items()} == {
        "train": ["one"],
        "val": ["three"],
    }
    assert [reject.source for reject in found.missing["train"]] == ["train/2.jpg"]
    (tmp_path / "val/3.json").write_text("[1]")
    with pytest.raises(DatasetError, match=r"3\.json holds no object, but a list"):
        DATASETS["image-text-folder"](tmp_path)
