"""Parquet files with media in a column, written as `datasets` of Hugging Face writes them."""

import json

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskstream.pipelines import image_loader
from maskstream.preprocess import DATASETS, make_shards
from maskstream.shards.errors import DatasetError, OutageError
from maskstream.shards.format.manifest import Manifest

from ..encode.sounds import wave, write_sound


def picture(n):
    return bytes(cv2.imencode(".png", np.full((20, 24, 3), 8 * n, np.uint8))[1])


def write(path, rows, features=None, group=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=group)


FEATURES = {
    "img": {"_type": "Image"},
    "label": {"names": ["airplane", "cat", "dog"], "_type": "ClassLabel"},
    "caption": {"dtype": "string", "_type": "Value"},
}


def cifar(root):
    for split, first, count in (("train-00000-of-00002", 0, 7), ("train-00001-of-00002", 7, 4), ("test-00000", 11, 2)):
        rows = [
            {"img": {"bytes": picture(n), "path": f"{n}.png"}, "label": n % 3, "caption": f"number {n}"}
            for n in range(first, first + count)
        ]
        write(root / "plain_text" / f"{split}.parquet", rows, FEATURES)
    return root


def test_images_with_class_labels(tmp_path):
    dataset = DATASETS["parquet-image"](cifar(tmp_path / "raw"))
    assert {split: len(sources) for split, sources in dataset.splits.items()} == {"train": 11, "test": 2}
    assert dataset.label_names == ("airplane", "cat", "dog")
    report = make_shards("parquet-image", tmp_path / "raw", tmp_path / "out", workers=0)
    assert {name: split.counts["samples"] for name, split in report.splits.items()} == {"train": 11, "test": 2}
    for batch in image_loader(tmp_path / "out/train", batch_size=11, fields=("caption",), shuffle=False):
        numbers = [int(caption.split()[1]) for caption in batch.fields["caption"]]
        assert sorted(numbers) == list(range(11))
        assert batch.label.tolist() == [n % 3 for n in numbers]
        assert batch.image.float().mean(dim=(1, 2, 3)).tolist() == [8.0 * n for n in numbers]
    again = make_shards("parquet-image", tmp_path / "raw", tmp_path / "out", workers=0)
    assert {split.state for split in again.splits.values()} == {"already finished"}


def test_sounds_without_metadata_and_with_names_as_labels(tmp_path):
    rows = []
    for n, label in enumerate(("dog", "cat", "dog")):
        data = write_sound(tmp_path / f"{n}.flac", wave(8000, seed=n), 16000, "flac", form="flac")
        rows.append({"audio": {"bytes": data, "path": None}, "label": label, "rating": n / 2})
    write(tmp_path / "raw/a.parquet", rows)
    report = make_shards("parquet-audio", tmp_path / "raw", tmp_path / "out", workers=0)
    assert report.splits["train"].counts["samples"] == 3
    manifest = Manifest.load(tmp_path / "out/train")
    assert sorted(manifest.info["label_names"][n] for n in manifest.label) == ["cat", "dog", "dog"]


def test_videos(tmp_path, make_video):
    rows = [{"video": make_video(f"{n}.mp4", 5 + n).read_bytes(), "label": n} for n in range(2)]
    write(tmp_path / "raw/train.parquet", rows)
    report = make_shards("parquet-video", tmp_path / "raw", tmp_path / "out", workers=0)
    assert report.splits["train"].counts["samples"] == 2


def test_what_is_no_such_file_is_said(tmp_path):
    root = tmp_path / "raw"
    write(root / "train.parquet", [{"text": "a", "label": 1}])
    with pytest.raises(DatasetError, match=r"has no columns of the kind image \(none\), of the columns text, label"):
        DATASETS["parquet-image"](root)
    write(root / "train.parquet", [{"image": picture(1), "img": picture(2)}])
    with pytest.raises(DatasetError, match=r"has 2 columns of the kind image \(image, img\)"):
        DATASETS["parquet-image"](root)
    write(root / "train.parquet", [{"image": picture(n), "label": 1} for n in range(2)])
    assert DATASETS["parquet-image"](root).doubt.startswith("all 2 image rows would have the same label, '1'")
    write(root / "other.parquet", [{"image": picture(1), "label": 2}])
    with pytest.raises(DatasetError, match=r"other\.parquet is not named after a split, but others are"):
        DATASETS["parquet-image"](root)
    (root / "other.parquet").write_bytes(b"PAR1 no")
    (root / "train.parquet").unlink()
    with pytest.raises(DatasetError, match="is no Parquet file, or damaged"):
        DATASETS["parquet-image"](root)
    write(root / "other.parquet", [{"image": {"bytes": None, "path": "far.png"}, "label": 2}])
    with pytest.raises(OutageError, match=r"row 0 of .* holds no bytes in 'image', but .*far\.png"):
        make_shards("parquet-image", root, tmp_path / "out", workers=0, pauses_s=())
