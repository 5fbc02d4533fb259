"""Parquet files with media in a column, written as `datasets` of Hugging Face writes them."""

import json

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskstream.pipelines import image_loader
from maskstream.preprocess import DATASETS, make_shards
from maskstream.preprocess.raw.file_state import DamagedFileError
from maskstream.preprocess.raw.parquet_rows import ParquetRows
from maskstream.shards.errors import DatasetError
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
    with pytest.raises(DatasetError, match=r"has no columns of type image \(none\) among text, label"):
        DATASETS["parquet-image"](root)
    write(root / "train.parquet", [{"image": picture(1), "img": picture(2)}])
    with pytest.raises(DatasetError, match=r"has 2 columns of type image \(image, img\)"):
        DATASETS["parquet-image"](root)
    write(root / "train.parquet", [{"image": picture(n), "label": 1} for n in range(2)])
    assert DATASETS["parquet-image"](root).doubt.startswith("all 2 image rows would have the same label, '1'")
    write(root / "other.parquet", [{"image": picture(1), "label": 2}])
    with pytest.raises(DatasetError, match=r"other\.parquet is not named after a split, but others are"):
        DATASETS["parquet-image"](root)
    (root / "other.parquet").write_bytes(b"PAR1 no")
    (root / "train.parquet").unlink()
    with pytest.raises(DatasetError, match="is damaged or not a Parquet file"):
        DATASETS["parquet-image"](root)
    write(root / "other.parquet", [{"image": {"bytes": None, "path": "far.png"}, "label": 2}])
    with pytest.raises(DatasetError, match=r"none of 1 sources .* contains no bytes in 'image', but .*far\.png"):
        make_shards("parquet-image", root, tmp_path / "out", workers=0, pauses_s=())


def listed(root, **columns):
    root.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), root / "train.parquet")
    return DATASETS["parquet-image"](root)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [1, 3_000_000_000]}, r"train\.parquet: the label 3000000000 is larger than 1048575"),
        ({"label": [[1], [2]]}, r"the column 'label' of .*train\.parquet is list<.*; it must contain names or numbers"),
        ({"label": [{"a": 1}, {"a": 2}]}, r"the column 'label' of .* is struct<"),
        (
            {"image": ["http://x/1.png", "b"]},
            r"the column 'image' of .* is string; each row must contain the bytes of a file",
        ),
        ({"label": [-5, 3]}, r"train\.parquet: row 0: the label '-5' is not one of 4"),
    ],
)
def test_columns_that_are_odd_are_refused_by_name(tmp_path, columns, message):
    with pytest.raises(DatasetError, match=message):
        listed(tmp_path / "raw", **{"image": [b"x", b"y"], **columns})


@pytest.mark.parametrize("features", [{"image": 5, "label": 7}, {"label": {"_type": "ClassLabel", "names": 5}}, "deep"])
def test_metadata_that_are_odd_are_left_out_or_refused(tmp_path, features):
    text = "[" * 100_000 if features == "deep" else json.dumps({"info": {"features": features}})
    table = pa.table({"image": [b"x"], "label": [0]}).replace_schema_metadata({"huggingface": text})
    pq.write_table(table, tmp_path / "train.parquet")
    if isinstance(features, dict) and isinstance(features["label"], dict):
        with pytest.raises(DatasetError, match=r"train\.parquet contains the labels '5'; they must be a list of names"):
            DATASETS["parquet-image"](tmp_path)
    else:
        assert len(DATASETS["parquet-image"](tmp_path).splits["train"]) == 1


def test_a_damaged_footer_is_no_outage(tmp_path):
    listed(tmp_path, image=[b"x"], label=[0])
    data = bytearray((tmp_path / "train.parquet").read_bytes())
    begin = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[begin : begin + 40] = b"\xff" * 40
    (tmp_path / "train.parquet").write_bytes(bytes(data))
    with pytest.raises(DatasetError, match=r"train\.parquet is damaged or not a Parquet file \(.*thrift"):
        DATASETS["parquet-image"](tmp_path)


def test_columns_may_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("maskstream.preprocess.datasets.parquet_media.MAX_LISTED_BYTES", 10_000)
    assert listed(tmp_path / "raw", image=[b"x"] * 20, text=["z" * 400] * 20).splits
    with pytest.raises(DatasetError, match=r"besides the media exceed 10000 bytes \(text\)"):
        listed(tmp_path / "raw", image=[b"x"] * 30, text=["z" * 400] * 30)


def test_a_column_neither_steers_the_encoder_nor_hides_the_source(tmp_path):
    columns = {"image": [picture(n) for n in range(3)], "label": [0, 1, 0]}
    listed(tmp_path / "raw", **columns, source=["wiki", "wiki", "web"], crop=["x", "y", "z"], key=["a", "b", "c"])
    make_shards("parquet-image", tmp_path / "raw", tmp_path / "out", workers=0)
    loader = image_loader(
        tmp_path / "out/train", batch_size=3, fields=("column_source", "column_crop", "source"), shuffle=False
    )
    (batch,) = loader
    assert sorted(batch.fields["column_source"]) == ["web", "wiki", "wiki"]
    assert sorted(batch.fields["source"]) == [f"train.parquet:{row}" for row in range(3)]


def rejects_of(split):
    return {row["source"]: row["reason"] for row in pq.read_table(split / "rejects.parquet").to_pylist()}


def test_a_row_without_bytes_is_one_reject(tmp_path):
    listed(tmp_path / "raw", image=[picture(0), None, picture(2)], label=[0, 1, 0])
    for _ in range(2):  # the second time, the row is still as it was
        report = make_shards("parquet-image", tmp_path / "raw", tmp_path / "out", workers=0, max_rejects=1)
        assert report.splits["train"].counts["samples"] == 2
    assert rejects_of(tmp_path / "out/train") == {
        "train.parquet:1": "contains no bytes in 'image', but 'None' (train.parquet)"
    }


def test_a_damaged_group_costs_its_rows(tmp_path):
    listed(tmp_path / "raw", image=[picture(n % 30) for n in range(4)], label=[0, 1, 0, 1])
    path = tmp_path / "raw/train.parquet"
    table = pq.read_table(path)
    pq.write_table(table, path, row_group_size=2, use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    at = column.data_page_offset
    data[at : at + 60] = bytes(60)
    path.write_bytes(bytes(data))
    report = make_shards("parquet-image", path.parent, tmp_path / "out", workers=0, max_rejects=1, pauses_s=())
    assert report.splits["train"].counts["samples"] == 2
    assert {
        source: "damaged group of rows" in reason for source, reason in rejects_of(tmp_path / "out/train").items()
    } == {
        "train.parquet:2": True,
        "train.parquet:3": True,
    }


def test_each_group_is_read_once_by_all_tasks(tmp_path, monkeypatch):
    write(tmp_path / "raw/train.parquet", [{"image": picture(n % 30), "label": n % 2} for n in range(60)], group=6)
    read = []
    batches = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile,
        "iter_batches",
        lambda self, *args, **options: read.append(options.get("row_groups")) or batches(self, *args, **options),
    )
    report = make_shards("parquet-image", tmp_path / "raw", tmp_path / "out", workers=0, samples_per_shard=8)
    assert report.splits["train"].counts["samples"] == 60
    assert sorted(groups for groups in read if groups) == [[group] for group in range(10)]
    full = type("Disk", (), {"free": 0})
    monkeypatch.setattr("maskstream.preprocess.raw.parquet_rows.shutil.disk_usage", lambda folder: full)
    make_shards("parquet-image", tmp_path / "raw", tmp_path / "full", workers=0, samples_per_shard=8)
    for name in sorted(path.name for path in (tmp_path / "out/train").glob("*.tar")):
        assert (tmp_path / "out/train" / name).read_bytes() == (tmp_path / "full/train" / name).read_bytes()


def test_a_group_that_unpacks_to_much_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("maskstream.preprocess.raw.parquet_rows._FEW_BYTES", 1 << 20)
    big = bytes(1 << 18)
    listed(tmp_path / "raw", image=[picture(0), *[big] * 40], label=[0] * 41)
    rows = ParquetRows(tmp_path / "raw/train.parquet", tmp_path)
    with pytest.raises(DamagedFileError, match=r"is in a row group of \d+ bytes or more, compressed to"):
        rows.data("image/40.jpg")
    assert sum(path.stat().st_size for path in tmp_path.glob("*.arrow")) == 0


def classes(root, names, values, file="train-0.parquet", kind="ClassLabel"):
    """A file of pictures with numbers as labels, and the names that its metadata give them."""
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": kind}} if names else None
    rows = [{"image": picture(n), "label": value} for n, value in enumerate(values)]
    write(root / file, rows, features)


def named(dataset):
    return {source.id: dataset.label_names[source.label] for some in dataset.splits.values() for source in some}


def test_files_that_number_their_classes_differently_are_matched_by_name(tmp_path):
    classes(tmp_path, ["cat", "dog"], [0, 1, -1], "test-0.parquet")
    classes(tmp_path, ["dog", "cow", "cat"], [0, 1, 2])
    classes(tmp_path, ["owl", "dog"], [0, 1], "train-1.parquet")
    dataset = DATASETS["parquet-image"](tmp_path)
    assert dataset.label_names == ("dog", "cow", "cat", "owl")
    found = [(source.id, source.label) for some in dataset.splits.values() for source in some]
    assert ("test-0.parquet:2", -1) in found
    assert {key: dataset.label_names[n] for key, n in found if n >= 0} == {
        **{"test-0.parquet:0": "cat", "test-0.parquet:1": "dog"},
        **{"train-0.parquet:0": "dog", "train-0.parquet:1": "cow", "train-0.parquet:2": "cat"},
        **{"train-1.parquet:0": "owl", "train-1.parquet:1": "dog"},
    }


def test_names_as_values_and_names_in_metadata_are_the_same_classes(tmp_path):
    classes(tmp_path, ["dog", "cat"], [0, 1])
    classes(tmp_path, None, ["cat", "dog"], "test-0.parquet")
    assert named(DATASETS["parquet-image"](tmp_path)) == {
        **{"train-0.parquet:0": "dog", "train-0.parquet:1": "cat"},
        **{"test-0.parquet:0": "cat", "test-0.parquet:1": "dog"},
    }


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        (
            None,
            [0, 1],
            r"row 0: the label 0 is a number, but the classes of .*1\.parquet have names",
        ),
        (["a", "b"], [0, 2], r"row 1: the label 2 is out of range; use -1 for no label, or 0 to 1"),
        (["a", "b", "a"], [0, 2], r"contains the label 'a' twice; use a unique name for each class"),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_labels_that_cannot_be_matched_are_refused(tmp_path, names, values, message, named):
    classes(tmp_path, names, values)
    classes(tmp_path, ["a", "b"] if named else None, [0, 1] if named else ["a", "b"], "train-1.parquet")
    with pytest.raises(DatasetError, match=message):
        DATASETS["parquet-image"](tmp_path)


@pytest.mark.parametrize("form", ["texts", "a list for each split"])
def test_numbers_of_other_readers_mean_the_same_in_all_files(tmp_path, form):
    """Texts and lists keep numbers as they are, so files whose metadata name them otherwise are refused."""
    for split, names in (("train", ["cat", "dog"]), ("val", ["cat", "dog", "owl"])):
        column = {"text": ["x", "y"]} if form == "texts" else {"path": [f"{split}-0.png", f"{split}-1.png"]}
        rows = [{name: values[n] for name, values in column.items()} | {"label": n} for n in range(2)]
        write(tmp_path / f"{split}.parquet", rows, {"label": {"names": names, "_type": "ClassLabel"}})
        for n in range(2):
            (tmp_path / f"{split}-{n}.png").write_bytes(picture(n))
    dataset = "parquet-text" if form == "texts" else "image-folder"
    assert DATASETS[dataset](tmp_path).label_names == ("0", "1")
    write(tmp_path / "val.parquet", rows, {"label": {"names": ["dog", "cat"], "_type": "ClassLabel"}})
    with pytest.raises(DatasetError, match=r"val\.parquet and .*train\.parquet number classes differently: by"):
        DATASETS[dataset](tmp_path)
