"""Each dataset's layout on a tiny tree of empty files, what is missing, and what a wrong layout is told."""

import threading
from functools import partial
from pathlib import Path

import pytest

from maskstream.preprocess import make_shards
from maskstream.preprocess.datasets import DATASETS, FORMER, Source, chosen_dataset, own_settings
from maskstream.preprocess.datasets.dataset import split_present
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.manifest import Manifest

from ..raw_files import labelled, put, refused, touch


@pytest.fixture
def no_download(monkeypatch):
    """Datasets that need an own folder start no pip, npm or apt."""

    def run(command, **_):
        raise AssertionError(f"it downloads with {command[:5]}: a dataset of packages is a sample set")

    monkeypatch.setattr("subprocess.run", run)


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_no_folder_and_an_empty_one(name, tmp_path, no_download):
    message = refused(name, tmp_path / "none")
    assert str(tmp_path / "none") in message
    assert "ROOT/" in message  # how to lay it out
    assert str(tmp_path) in refused(name, tmp_path)


def test_many_files_are_looked_for_at_the_same_time(tmp_path, monkeypatch):
    """Each look waits until two are on their way, as on a network's file system, where each takes its time."""
    both = threading.Barrier(2, timeout=20)
    looked = []

    def is_file(path):
        looked.append(path.name)
        if path.name in ("0.mp4", "200.mp4"):
            both.wait()
        return path.name != "7.mp4"

    listed = [Source(id=str(n), path=tmp_path / f"{n}.mp4") for n in range(300)]
    with monkeypatch.context() as patched:
        patched.setattr(Path, "is_file", is_file)
        present, missing = split_present(listed, tmp_path)
    assert sorted(looked) == sorted(source.path.name for source in listed)
    assert [source.id for source in present] == [str(n) for n in range(300) if n != 7]
    assert [reject.source for reject in missing] == ["7"]


HEAD = "label,youtube_id,time_start,time_end,split\n"


@pytest.mark.parametrize("lists", ["annotations", "."])
def test_k400_flat_with_replacements_and_missing(tmp_path, lists):
    touch(
        tmp_path,
        "train/-abc_DE_f12_000001_000011.mp4",
        "train/bbbbbbbbbbb_000000_000010.mp4",
        "replacement_for_corrupted_k400/bbbbbbbbbbb_000000_000010.mp4",
        "val/ddddddddddd_000100_000110.mkv",
    )
    put(
        tmp_path / lists / "train.csv",
        f"{HEAD}zumba,-abc_DE_f12,1,11,train\nabseiling,bbbbbbbbbbb,0,10,train\nabseiling,ccccccccccc,5,15,train\n",
    )
    put(tmp_path / lists / "validate.csv", f"{HEAD}zumba,ddddddddddd,100,110,validate\n")
    put(tmp_path / lists / "test.csv", f"{HEAD}zumba,eeeeeeeeeee,0,10,test\n")
    dataset = DATASETS["k400"](tmp_path)
    assert dataset.label_names == ("abseiling", "zumba")
    assert labelled(dataset) == {
        "train": [
            ("train/-abc_DE_f12_000001_000011", "zumba"),
            ("train/bbbbbbbbbbb_000000_000010", "abseiling"),
        ],
        "val": [("val/ddddddddddd_000100_000110", "zumba")],
    }
    assert dataset.splits["train"][1].path.parent.name == "replacement_for_corrupted_k400"
    assert [(reject.source, reject.stage) for reject in dataset.missing["train"]] == [
        ("train/ccccccccccc_000005_000015", "missing")
    ]
    assert dataset.missing["val"] == []


def test_k600_lists_in_txt_and_k700_in_class_folders(tmp_path):
    """As the CVD Foundation publishes them: annotations/train.txt of 600, and a folder a class of 700-2020."""
    k600, k700 = tmp_path / "k600", tmp_path / "k700-2020"
    touch(k600, "train/-0BIyqJj9ZU_000030_000040.mp4", "val/zzzzzzzzzzz_000001_000011.mp4")
    put(k600 / "annotations/train.txt", f"{HEAD}zumba,-0BIyqJj9ZU,30,40,train\n")
    put(k600 / "annotations/val.txt", f"{HEAD}yoga,zzzzzzzzzzz,1,11,val\n")
    dataset = DATASETS["k600"](k600)
    assert dataset.name == "k600"
    assert labelled(dataset) == {
        "train": [("train/-0BIyqJj9ZU_000030_000040", "zumba")],
        "val": [("val/zzzzzzzzzzz_000001_000011", "yoga")],
    }
    touch(k700, "train/playing oboe/--gMaYVJsD0_000005_000015.mp4", "val/yoga/aaaaaaaaaaa_000000_000010.mp4")
    put(k700 / "annotations/train.csv", f"{HEAD}playing oboe,--gMaYVJsD0,5,15,train\n")
    put(k700 / "annotations/val.csv", f"{HEAD}yoga,aaaaaaaaaaa,0,10,val\n")
    assert labelled(DATASETS["k700"](k700))["train"] == [("train/--gMaYVJsD0_000005_000015", "playing oboe")]


def test_k400_class_folders(tmp_path):
    touch(tmp_path, "videos_train/abseiling/a_000000_000010.mp4", "videos_val/zumba/b_000000_000010.mp4")
    dataset = DATASETS["k400"](tmp_path)
    assert labelled(dataset) == {
        "train": [("videos_train/abseiling/a_000000_000010.mp4", "abseiling")],
        "val": [("videos_val/zumba/b_000000_000010.mp4", "zumba")],
    }


def test_k400_all_missing(tmp_path):
    put(tmp_path / "train.csv", f"{HEAD}zumba,aaaaaaaaaaa,1,11,train\n")
    message = refused("k400", tmp_path)
    assert "the split 'train' lists 1 videos" in message
    assert "cvdfoundation" in message


def test_k400_of_which_only_val_was_downloaded(tmp_path, make_video):
    raw, video = tmp_path / "raw", make_video("a.mp4", 12).read_bytes()
    put(raw / "annotations/train.csv", f"{HEAD}abseiling,aaaaaaaaaaa,1,11,train\nyoga,bbbbbbbbbbb,1,11,train\n")
    put(raw / "annotations/val.csv", f"{HEAD}yoga,ccccccccccc,1,11,val\nzumba,ddddddddddd,1,11,val\n")
    for name in ("ccccccccccc", "ddddddddddd"):
        (raw / "val").mkdir(exist_ok=True)
        (raw / f"val/{name}_000001_000011.mp4").write_bytes(video)
    whole = partial(make_shards, "k400", raw, tmp_path / "out", workers=0)
    with pytest.raises(DatasetError, match=r"'train' lists 2 videos.* add --split val \(splits=\['val'\]\)$"):
        whole()
    with pytest.raises(DatasetError, match="'train' lists 2 videos, such as"):
        whole(splits=["train"])
    with pytest.raises(DatasetError, match="k400 has no split 'test'; use one of val, train"):
        whole(splits=["test"])
    assert list(whole(splits=["val"]).splits) == ["val"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["val"]
    assert sorted(Manifest.load(tmp_path / "out/val").label) == [1, 2]
    (raw / "train").mkdir()
    (raw / "train/aaaaaaaaaaa_000001_000011.mp4").write_bytes(video)
    report = whole(max_rejects=0.5)
    assert {name: split.state for name, split in report.splits.items()} == {
        "val": "already finished",
        "train": "written",
    }


@pytest.mark.parametrize("prefix", ["", "labels/something-something-v2-"])
def test_ssv2(tmp_path, prefix):
    touch(tmp_path, "20bn-something-something-v2/7.webm", "20bn-something-something-v2/9.webm")
    put(tmp_path / f"{prefix}labels.json", {"Holding something": "1", "Closing something": "0"})
    entries = [
        {"id": "7", "label": "holding a cup", "template": "Holding [something]"},
        {"id": "8", "template": "Closing [something]"},
    ]
    put(tmp_path / f"{prefix}train.json", entries)
    put(tmp_path / f"{prefix}validation.json", [{"id": "9", "template": "Closing [something]"}])
    dataset = DATASETS["ssv2"](tmp_path)
    assert dataset.label_names == ("Closing something", "Holding something")
    assert labelled(dataset) == {"train": [("7", "Holding something")], "val": [("9", "Closing something")]}
    assert [reject.source for reject in dataset.missing["train"]] == ["8"]


@pytest.fixture
def ucf(tmp_path):
    touch(
        tmp_path,
        "UCF-101/Archery/v_Archery_g01_c01.avi",
        "UCF-101/Archery/v_Archery_g02_c01.avi",
        "UCF-101/HandstandPushups/v_HandStandPushups_g01_c01.avi",
    )
    lists = tmp_path / "ucfTrainTestlist"
    put(lists / "classInd.txt", "1 Archery\n2 HandstandPushups\n")
    put(
        lists / "trainlist01.txt",
        "Archery/v_Archery_g02_c01.avi 1\nHandstandPushups/v_HandStandPushups_g01_c01.avi 2\n",
    )
    put(lists / "testlist01.txt", "Archery/v_Archery_g01_c01.avi\r\nArchery/v_Archery_g09_c01.avi\r\n")
    return tmp_path


def test_ucf101(ucf):
    dataset = DATASETS["ucf101"](ucf)
    assert labelled(dataset) == {
        "train": [
            ("Archery/v_Archery_g02_c01.avi", "Archery"),
            ("HandstandPushups/v_HandStandPushups_g01_c01.avi", "HandstandPushups"),
        ],
        "val": [("Archery/v_Archery_g01_c01.avi", "Archery")],
    }
    assert [reject.source for reject in dataset.missing["val"]] == ["Archery/v_Archery_g09_c01.avi"]
    with pytest.raises(DatasetError, match=r"trainlist02\.txt"):
        DATASETS["ucf101"](ucf, fold=2)
    with pytest.raises(ValueError, match="folds 1 to 3, got fold=4"):
        DATASETS["ucf101"](ucf, fold=4)
    put(ucf / "ucfTrainTestlist" / "classInd.txt", "1 Bowling\n")
    assert "whose class is not in classInd.txt" in refused("ucf101", ucf)


def test_hmdb51_same_name_in_two_classes(tmp_path):
    touch(
        tmp_path,
        "hmdb51_org/run/a#(x).avi",
        "hmdb51_org/walk/a#(x).avi",
        "hmdb51_org/walk/b.avi",
        "hmdb51_org/walk/c.avi",
    )
    lists = tmp_path / "testTrainMulti_7030_splits"
    put(lists / "walk_test_split1.txt", "a#(x).avi 2 \nb.avi 1 \nc.avi 0 \nd.avi 1 \n")
    put(lists / "run_test_split1.txt", "a#(x).avi 1 \n")
    dataset = DATASETS["hmdb51"](tmp_path)
    assert labelled(dataset) == {
        "train": [("run/a#(x).avi", "run"), ("walk/b.avi", "walk")],
        "val": [("walk/a#(x).avi", "walk")],
    }
    assert [source.path.parent.name for source in dataset.splits["train"]] == ["run", "walk"]
    assert dataset.splits["val"][0].path.parent.name == "walk"
    assert [reject.source for reject in dataset.missing["train"]] == ["walk/d.avi"]


def test_folder_with_splits(tmp_path):
    touch(
        tmp_path,
        "train/b/x.MP4",
        "train/a/deep/y.mkv",
        "train/loose.avi",
        "val/a/z.webm",
        "train/.hidden/h.mp4",
        "n.txt",
    )
    dataset = DATASETS["folder"](tmp_path)
    assert dataset.label_names == ("a", "b")
    assert labelled(dataset) == {
        "train": [("train/a/deep/y.mkv", "a"), ("train/b/x.MP4", "b"), ("train/loose.avi", None)],
        "val": [("val/a/z.webm", "a")],
    }


def test_folder_without_splits(tmp_path):
    touch(tmp_path, "a/x.mp4", "b/y.mp4", "val/z.mp4")
    assert labelled(DATASETS["folder"](tmp_path)) == {
        "train": [("a/x.mp4", "a"), ("b/y.mp4", "b"), ("val/z.mp4", "val")]
    }


def test_folder_list(tmp_path):
    touch(tmp_path, "x.mp4", "some/y.mp4")
    put(tmp_path / "videos.csv", "path,label,split\nx.mp4,cat,\nsome/y.mp4,dog,validation\nz.mp4,cat,train\n")
    dataset = DATASETS["folder"](tmp_path)
    assert labelled(dataset) == {"train": [("x.mp4", "cat")], "val": [("some/y.mp4", "dog")]}
    assert [reject.source for reject in dataset.missing["train"]] == ["z.mp4"]
    put(tmp_path / "videos.csv", "path,label\nx.mp4,3\nsome/y.mp4,0\n")
    dataset = DATASETS["folder"](tmp_path)
    assert dataset.label_names == ("0", "1", "2", "3")
    assert [source.label for source in dataset.splits["train"]] == [3, 0]


def test_settings_of_a_dataset_are_told_from_those_of_its_encoder(ucf):
    make, left = chosen_dataset("ucf101", ["short_side=128", "fold=1"])
    assert left == ["short_side=128"]
    assert labelled(make(ucf)) == labelled(DATASETS["ucf101"](ucf))
    make, _ = chosen_dataset("ucf101", ["fold=2"])
    with pytest.raises(DatasetError, match=r"trainlist02\.txt"):
        make(ucf)
    for wrong in ("fold=two", "fold=true", "fold=1.5", "fold="):
        with pytest.raises(ValueError, match="must be a number, such as fold=1"):
            chosen_dataset("ucf101", [wrong])
    with pytest.raises(ValueError, match="must be true or false, such as balanced=false"):
        chosen_dataset("audioset", ["balanced=1"])
    assert own_settings(DATASETS["audioset-video"]) == {"balanced": False, "whole": False}
    assert own_settings(DATASETS["folder"]) == {"separator": ""}


@pytest.mark.parametrize("name", FORMER)
def test_a_former_name_makes_what_it_made_and_says_what_is_given_now(name, caplog):
    now, setting = FORMER[name]
    old, left = chosen_dataset(name, ["bits=3"])
    new, _ = chosen_dataset(now, [setting])
    assert left == ["bits=3"]
    assert (old.func, old.keywords) == (new.func, new.keywords)
    [record] = caplog.records
    assert f"{name} is now {now} with --set {setting}" in record.message


def test_a_function_of_your_own_has_settings_too(tmp_path):
    def mine(root, *, doubled: bool = False):
        return doubled

    make, left = chosen_dataset(mine, ["doubled=true", "crf=30"])
    assert (make(tmp_path), left) == (True, ["crf=30"])
