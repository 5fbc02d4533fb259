"""Lists in the forms that VideoMAE, V-JEPA, AST and Audio-MAE read."""

import json

import pytest

from maskstream.preprocess import DATASETS
from maskstream.shards.errors import DatasetError

from ..raw_files import touch


def rows(dataset):
    return {split: [(source.id, source.label) for source in sources] for split, sources in dataset.splits.items()}


@pytest.mark.parametrize("between", [" ", ",", "\t", ", "])
def test_a_list_of_paths_and_labels(tmp_path, between):
    touch(tmp_path, "a b/one 3.mp4", "two.mp4", "three.webm")
    (tmp_path / "k710_train.csv").write_text(f"a b/one 3.mp4{between}4\n{tmp_path / 'two.mp4'}{between}0\n")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "val.txt").write_text(f"three.webm{between}2\n")
    found = DATASETS["video-list"](tmp_path)
    assert rows(found) == {"train": [("a b/one 3.mp4", 4), (str(tmp_path / "two.mp4"), 0)], "val": [("three.webm", 2)]}
    assert found.label_names == ("0", "1", "2", "3", "4")
    assert [source.path for source in found.splits["train"]] == [tmp_path / "a b/one 3.mp4", tmp_path / "two.mp4"]


def test_kinetics_710_has_one_list_over_three_sets_and_a_map_of_labels(tmp_path):
    """As VideoMAE V2 keeps it: the line of a name is its label, which videos of all three sets share."""
    videos = ("k400/train/a_000001_000011.mp4", "k600/train/b_000002_000012.mp4", "k700/val/c_000003_000013.mp4")
    touch(tmp_path, *videos)
    (tmp_path / "k710_train.csv").write_text(f"{videos[0]} 0\n{videos[1]} 2\n")
    (tmp_path / "k710_val.csv").write_text(f"{videos[2]} 0\n")
    (tmp_path / "label_map_k710.txt").write_text("riding a bike\nmarching\ndodgeball\n")
    found = DATASETS["video-list"](tmp_path)
    assert found.label_names == ("riding a bike", "marching", "dodgeball")
    assert rows(found) == {"train": [(videos[0], 0), (videos[1], 2)], "val": [(videos[2], 0)]}
    (tmp_path / "label_map_k710.txt").write_text("riding a bike\n")
    with pytest.raises(DatasetError, match=r"label_map_k710\.txt has 1 names, but a list contains the label 2"):
        DATASETS["video-list"](tmp_path)


def test_whole_videos_without_labels(tmp_path):
    touch(tmp_path, "one.mp4", "two.mp4")
    (tmp_path / "train.csv").write_text("one.mp4 0 -1\ntwo.mp4 0 -1\n")
    found = DATASETS["video-list"](tmp_path)
    assert rows(found) == {"train": [("one.mp4", -1), ("two.mp4", -1)]}
    assert found.label_names == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,label\none.mp4,3\n", "line 1 is 'path,label', not `PATH LABEL`"),
        ("one.mp4 1\nframes 0 300\n", "line 2 has a different format"),
        ("frames 0 300\n", "selects frames 0, 300 of 'frames'; only whole videos"),
        ("one.mp4 99999999999\n", "has the label 99999999999, not a number"),
        ("one.mp4 -2\n", "has the label -2"),
        ("one.mp4 1\n./one.mp4 1\n", "line 2 has the same path as"),
    ],
)
def test_a_wrong_list_names_its_line(tmp_path, text, says):
    touch(tmp_path, "one.mp4")
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(DatasetError) as caught:
        DATASETS["video-list"](tmp_path)
    assert says in str(caught.value)


def test_a_path_in_two_splits_and_two_lists_of_a_split_are_refused(tmp_path):
    touch(tmp_path, "one.mp4")
    for name in ("train.csv", "val.csv"):
        (tmp_path / name).write_text("one.mp4 1\n")
    with pytest.raises(DatasetError, match=r"val\.csv: line 1 has the same path as .*train\.csv: line 1"):
        DATASETS["video-list"](tmp_path)
    (tmp_path / "train_2.txt").write_text("one.mp4 1\n")
    with pytest.raises(
        DatasetError,
        match=r"several files could be the list of the split train \(.*train\.csv, .*train_2\.txt\); keep only one",
    ):
        DATASETS["video-list"](tmp_path)


CLASSES = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/04rlf,"Music"\n2,/m/0bt9lr,"Dog"\n'


def test_audio_lists_in_json(tmp_path):
    touch(tmp_path, "wav/a.wav", "wav/b.wav")
    (tmp_path / "class_labels_indices.csv").write_text(CLASSES)
    (tmp_path / "audioset_train.json").write_text(
        json.dumps({"data": [{"wav": "wav/a.wav", "labels": "/m/0bt9lr,/m/09x0r"}]})
    )
    (tmp_path / "audioset_eval.json").write_text(
        json.dumps({"data": [{"wav": str(tmp_path / "wav/b.wav"), "labels": "/m/04rlf"}]})
    )
    found = DATASETS["audio-json"](tmp_path)
    assert rows(found) == {"train": [("wav/a.wav", 2)], "val": [(str(tmp_path / "wav/b.wav"), 1)]}
    assert found.splits["train"][0].meta == {"labels": [2, 0]}
    assert found.label_names == ("Speech", "Music", "Dog")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "has no list `data`"),
        ({"data": [{"wav": "a.wav"}]}, "entry 0 needs the texts `wav` and `labels`"),
        ({"data": [{"wav": "a.wav", "labels": "/m/none"}]}, "the class '/m/none', which is not in class_labels"),
    ],
)
def test_wrong_audio_lists_are_said(tmp_path, data, says):
    (tmp_path / "class_labels_indices.csv").write_text(CLASSES)
    (tmp_path / "train.json").write_text(json.dumps(data))
    with pytest.raises(DatasetError) as caught:
        DATASETS["audio-json"](tmp_path)
    assert says in str(caught.value)


def test_audioset_with_its_lists_in_metadata(tmp_path):
    touch(tmp_path, "train/-0RWZT-miFs.wav", "eval/YsmjuInkvt_0.wav")
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata/class_labels_indices.csv").write_text(CLASSES)
    head = "# Segments csv created Sun Mar  5 10:54:31 2017\n# YTID, start_seconds, end_seconds, positive_labels\n"
    lists = {
        "balanced_train": '-0RWZT-miFs, 420.000, 430.000, "/m/0bt9lr,/m/09x0r"',
        "eval": 'smjuInkvt_0, 0, 10, "/m/04rlf"',
    }
    for name, line in lists.items():
        (tmp_path / f"metadata/{name}_segments.csv").write_text(f"{head}{line}\n")
    found = DATASETS["audioset"](tmp_path)
    assert rows(found) == {"train": [("-0RWZT-miFs_420_430", 2)], "val": [("smjuInkvt_0_0_10", 1)]}
    (tmp_path / "metadata/class_labels_indices.csv").unlink()
    with pytest.raises(DatasetError, match=r"no class_labels_indices\.csv in .* or in metadata/"):
        DATASETS["audioset"](tmp_path)
