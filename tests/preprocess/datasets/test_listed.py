"""Lists of media: known columns are used, all others are kept, and what is doubtful is said with line and column."""

import json
import re
import tarfile

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskstream.pipelines import VideoClip, image_loader, video_loader
from maskstream.preprocess import DATASETS, make_shards
from maskstream.preprocess.datasets import chosen_dataset
from maskstream.preprocess.datasets.listed import FACTS
from maskstream.preprocess.encode.audio.encoder import AudioEncoder
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.encode.video.encoder import VideoEncoder
from maskstream.preprocess.job.shards import find_dataset
from maskstream.preprocess.raw.tree import open_raw_tree
from maskstream.preprocess.source import Source, Span
from maskstream.preprocess.versions.adding import add_sources
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.manifest import Manifest

from ..encode.sounds import wave, write_sound


def listed(root, text, name="list.csv", dataset="folder", settings=()):
    for file in ("a.mp4", "b.mp4", "c.mp4"):
        (root / file).touch()
    (root / name).write_text(text)
    make, left = chosen_dataset(dataset, settings)
    assert not left
    return make(root)


def rows(dataset, split="train"):
    return [(one.id, one.label, one.span, dict(one.meta)) for one in dataset.splits[split]]


def refused(root, text, **words):
    with pytest.raises(DatasetError) as caught:
        listed(root, text, **words)
    return str(caught.value)


TABLE = [
    {"path": "a.mp4", "label": "dog", "start": 0, "end": 1.5, "caption": "a dog", "score": 0.5, "ok": True, "n": 3},
    {"path": "a.mp4", "label": "cat", "start": 1.5, "end": 62.25, "caption": "7", "score": 1.0, "ok": False, "n": 4},
    {"path": "b.mp4", "label": "dog", "caption": "b", "split": "val", "score": 2.0, "ok": True, "n": 5},
]
BOXES = [[1, 2], [3, 4], [5, 6]]


def write(path, form):
    """The table in a form, with a column of lists of numbers."""
    table = [{**row, "box": box} for row, box in zip(TABLE, BOXES, strict=True)]
    columns = ["path", "label", "start", "end", "caption", "score", "ok", "n", "split", "box"]
    if form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
    elif form == "parquet":
        pq.write_table(pa.table({name: [row.get(name) for row in table] for name in columns}), path)
    else:
        mark = "\t" if form == "tsv" else ","
        cells = [[row.get(name, "") for name in columns] for row in table]
        for cell in cells:
            cell[2:4] = [cell[2], "1:02.25" if cell[3] == 62.25 else cell[3]]
            cell[-1] = json.dumps(cell[-1]) if form == "tsv" else f'"{json.dumps(cell[-1])}"'
        path.write_text("\n".join(mark.join(map(str, line)) for line in [columns, *cells]))


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet"])
def test_every_column_is_kept_in_its_type(tmp_path, form):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    write(tmp_path / f"list.{form}", form)
    dataset = DATASETS["folder"](tmp_path)
    assert dataset.label_names == ("cat", "dog")
    assert dataset.doubt == ""
    first, second = rows(dataset)
    part = {"start": 0.0, "end": 1.5}
    assert first == (
        "a.mp4:0-1.5",
        1,
        Span(start_s=0.0, stop_s=1.5),
        part | {"caption": "a dog", "score": 0.5, "ok": True, "n": 3, "box": [1, 2]},
    )
    assert second[0] == "a.mp4:1.5-62.25"
    assert second[3]["caption"] == "7"  # a text, though it is a number
    assert rows(dataset, "val") == [
        ("b.mp4", 1, None, {"caption": "b", "score": 2.0, "ok": True, "n": 5, "box": [5, 6]})
    ]
    assert [type(first[3][name]) for name in ("score", "ok", "n")] == [float, bool, int]


def test_a_list_without_such_columns_says_what_it_said(tmp_path):
    dataset = listed(tmp_path, "path,label,split\na.mp4,x,\n./b.mp4,y,val\nc.mp4,,train\n")
    assert rows(dataset) == [("a.mp4", 0, None, {}), ("c.mp4", -1, None, {})]
    assert rows(dataset, "val") == [("./b.mp4", 1, None, {})]


@pytest.mark.parametrize(
    ("text", "settings", "names", "labels"),
    [
        ("path,labels\na.mp4,dog;rain\nb.mp4,rain\nc.mp4,\n", (), ("dog", "rain"), [[0, 1], [1], []]),
        ('path,labels\na.mp4,"[""dog"", ""rain""]"\nb.mp4,rain\nc.mp4,dog\n', (), ("dog", "rain"), [[0, 1], [1], [0]]),
        ("path,label\na.mp4,rain;dog\nb.mp4,rain\n", ["separator=;"], ("dog", "rain"), [[1, 0], [1]]),
        ('path,labels\na.mp4,"4, 1"\nb.mp4,1\n', ["separator=,"], ("0", "1", "2", "3", "4"), [[4, 1], [1]]),
        ("path,label,labels\na.mp4,rain,dog;rain\nb.mp4,dog,dog\n", (), ("dog", "rain"), [[1, 0], [0]]),
    ],
)
def test_several_labels(tmp_path, text, settings, names, labels):
    dataset = listed(tmp_path, text, settings=settings)
    assert dataset.label_names == names
    assert [one.meta["labels"] for one in dataset.splits["train"]] == [[names[n] for n in some] for some in labels]
    assert [one.label for one in dataset.splits["train"]] == [some[0] if some else -1 for some in labels]
    assert dataset.doubt == ""


def test_a_list_of_labels_in_json_lines(tmp_path):
    text = '{"path": "a.mp4", "label": ["dog", "rain"]}\n{"path": "b.mp4", "label": "rain"}\n'
    dataset = listed(tmp_path, text, name="x.jsonl")
    assert [one.meta["labels"] for one in dataset.splits["train"]] == [["dog", "rain"], ["rain"]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,label\na.mp4,a;b\nb.mp4,c\n", r"list\.csv: line 2 has the label 'a;b', which is read as one class"),
        ('path,labels\na.mp4,"a,b"\nb.mp4,c\n', r"line 2 has the labels 'a,b', .* add --set separator=,"),
        (
            "path,lable\na.mp4,a\nb.mp4,c\n",
            "the column 'lable', which becomes a field; if you meant 'label', rename it",
        ),
        ("path,label,stat,end\na.mp4,a,1,2\nb.mp4,b,1,2\n", "'stat', which becomes a field; if you meant 'start'"),
        ("path,class\na.mp4,a\nb.mp4,c\n", "has the column 'class' but no label; if it contains the labels, rename it"),
        (
            "path,label,note\na.mp4,a,\nb.mp4,b,\n",
            "the column 'note', which is empty in all of its 2 rows; remove it",
        ),
        ("path,label,start,duration\na.mp4,a,1,2\nb.mp4,b,1,2\n", "has 'duration' but no 'end', so parts extend"),
        ("path,label\ntrain/a.mp4,a\nval/a.mp4,b\n", "lists train/a.mp4, val/a.mp4, whose folders look like splits"),
        (",path,label\n5,a.mp4,a\n7,b.mp4,b\n", "has a column without a name, with the first value '5'; name it"),
        (
            "path,label,start,end,split\na.mp4,a,0,5,train\na.mp4,b,4,8,val\n",
            r"line 2 of .*list\.csv and line 3 of list\.csv put parts of a\.mp4 that overlap into the splits train and",
        ),
    ],
)
def test_what_is_doubtful_is_said(tmp_path, text, says):
    for name in ("train/a.mp4", "val/a.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert re.search(says, listed(tmp_path, text).doubt)


@pytest.mark.parametrize(
    "text",
    [
        ",path,label,stars,state\n0,a.mp4,a,1,x\n1,b.mp4,b,2,y\n",  # the numbers of pandas
        "path,label,start,end,split\na.mp4,a,0,5,train\na.mp4,b,5,8,val\n",
        "Path,Label,duration\na.mp4,a,1\nb.mp4,b,2\n",
    ],
)
def test_what_is_not_doubtful_is_read(tmp_path, text):
    assert listed(tmp_path, text).doubt == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,start,end\na.mp4,1,2\nb.mp4,3,3\n", "line 3 has the end 3 s, which is not after its start 3 s"),
        ("path,start,end\na.mp4,-1,2\n", "line 2 has the start '-1', which is neither seconds from 0 nor a time like"),
        ("path,start,end\na.mp4,one,2\n", "line 2 has the start 'one', which is neither seconds"),
        ("path,start,end\na.mp4,1,2\na.mp4,1.0,2\n", "line 3 has the same part 'a.mp4:1-2' as line 2. Remove one"),
        ("path,key\na.mp4,k\nb.mp4,k\n", "line 3 has the same key 'k' as line 2. Remove one of them"),
        ("path,label\na.mp4,1048576\n", "line 2 has the label '1048576', which is not a whole number from 0 to"),
        (
            "path\nhttps://x.org/a.mp4\n",
            "line 2 has the path 'https://x.org/a.mp4', which is a URL. Lists contain paths",
        ),
        ("path,labels\na.mp4,[1\n", "line 2 has the labels '[1', which begin like a JSON list but are not valid JSON"),
    ],
)
def test_a_row_that_cannot_be_used_is_said(tmp_path, text, says):
    message = refused(tmp_path, text)
    assert says in message
    assert "list.csv: line " in message


def test_rows_of_other_forms_that_cannot_be_used(tmp_path):
    assert "line 2 is not valid JSON" in refused(tmp_path, '{"path": "a.mp4"}\n{\n', name="x.jsonl")
    assert "line 2 is a list, not an object" in refused(tmp_path, '{"path": "a.mp4"}\n[1]\n', name="x.jsonl")
    for half in (r"a\ud800.mp4", r"a\u0000.mp4"):
        assert "which is not a valid path" in refused(tmp_path, f'{{"path": "{half}"}}\n', name="x.jsonl")
    text = '{"path": "a.mp4", "n": 1}\n{"path": "b.mp4", "n": "x"}\n'
    assert "the column 'n' is a number in line 1 and text in line 2; use one" in refused(tmp_path, text, name="x.jsonl")
    assert "has the label {'a': 1}" in refused(
        tmp_path, '{"path": "a.mp4", "label": {"a": 1}}\n', name="x.jsonl"
    ).replace('"', "")
    (tmp_path / "x.jsonl").unlink()
    pq.write_table(pa.table({"path": ["a.mp4"], "video": [b"..."]}), tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match=r"the column 'video' is binary; .* read by the datasets parquet-image"):
        DATASETS["folder"](tmp_path)
    (tmp_path / "x.parquet").write_bytes(bytes(100))
    with pytest.raises(DatasetError, match=r"begins with zeros: it is damaged, .* Write the list as csv"):
        DATASETS["folder"](tmp_path)


def test_a_file_that_is_no_list_is_not_read_in_silence(tmp_path):
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog/a.mp4").touch()
    (tmp_path / "notes.jsonl").write_text('{"name": "a.mp4", "label": "dog"}\n')
    assert "notes.jsonl in" in (doubt := DATASETS["folder"](tmp_path).doubt)
    assert "have no column 'path' and would be ignored" in doubt


def test_a_list_for_each_split(tmp_path):
    for name in ("train.csv", "val.csv"):
        (tmp_path / name).write_text("path,label\na.mp4,x\n" if "train" in name else "path,label\nb.mp4,y\n")
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    dataset = DATASETS["folder"](tmp_path)
    assert (rows(dataset), rows(dataset, "val")) == ([("a.mp4", 0, None, {})], [("b.mp4", 1, None, {})])
    (tmp_path / "val.csv").write_text("path,label\na.mp4,y\n")
    with pytest.raises(DatasetError, match=r"val\.csv: line 2 has the same path 'a\.mp4' as line 2 of train\.csv"):
        DATASETS["folder"](tmp_path)


def test_a_list_of_numbers_beside_one_of_names_is_doubtful(tmp_path):
    (tmp_path / "train.csv").write_text("path,label\na.mp4,cat\nb.mp4,dog\n")
    for name in "abcd":
        (tmp_path / f"{name}.mp4").touch()
    doubt = listed(tmp_path, "path,label\nc.mp4,0\nd.mp4,1\n", "val.csv").doubt
    assert "val.csv has numeric labels and train.csv has names" in doubt
    assert listed(tmp_path, "path,label\nc.mp4,dog\nd.mp4,7\n", "val.csv").doubt == ""


def test_codes_and_long_numbers_stay_as_they_are(tmp_path):
    text = "path,label,code,long,empty,flag\na.mp4,x,007,12345678901234567890,nan,TRUE\nb.mp4,y,010,1,2.5,false\n"
    first, second = (one.meta for one in listed(tmp_path, text).splits["train"])
    assert first == {"code": "007", "long": "12345678901234567890", "flag": True}
    assert second == {"code": "010", "long": "1", "empty": 2.5, "flag": False}


def test_a_list_in_an_archive(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "list.jsonl").write_text('{"path": "a.mp4", "start": 1, "end": 2, "caption": "hm"}\n')
    with tarfile.open(raw / "all.tar", "w") as tar:
        for name in ("a.mp4", "list.jsonl"):
            tar.add(tmp_path / name, name)
    with open_raw_tree(raw) as tree:
        (source,) = find_dataset(tree, DATASETS["folder"]).splits["train"]
    assert (source.span, source.meta["caption"]) == (Span(start_s=1.0, stop_s=2.0), "hm")
    assert source.path == raw / "all.tar!/a.mp4"


def test_samples_do_not_hide_columns(tmp_path, make_video):
    """What encoders write of a sample wins; a column of that name is called otherwise."""
    video = make_video("v.mp4", 12)
    cv2.imwrite(str(tmp_path / "i.png"), np.full((20, 24, 3), 90, np.uint8))
    write_sound(tmp_path / "s.flac", wave(8000), 16000, "flac")
    made = {
        "video": VideoEncoder().encode(Source(id="v", path=video)),
        "image": ImageEncoder().encode(Source(id="i", path=tmp_path / "i.png")),
        "audio": AudioEncoder().encode(Source(id="s", path=tmp_path / "s.flac")),
    }
    for modality, encoded in made.items():
        assert set(encoded.meta) <= FACTS[modality]
    dataset = listed(tmp_path, "path,label,fps,source\na.mp4,x,30,web\nb.mp4,y,25,film\n")
    assert dataset.splits["train"][0].meta == {"column_fps": 30, "column_source": "web"}


def test_parts_and_fields_reach_the_loader(tmp_path, make_video, rgb):
    """Before, start, end and caption were dropped, and a.mp4 could be listed once."""
    raw = tmp_path / "raw"
    for name in ("a", "b"):
        make_video(f"raw/{name}.mp4", 60, options={"g": "12"})
    (raw / "list.csv").write_text(
        "path,start,end,labels,caption,score\n"
        "a.mp4,0,0.8,dog;rain,first,0.5\na.mp4,0.8,1.6,rain,second,1\n"
        "b.mp4,1.6,9,dog,too long,2\nb.mp4,0:00:00,,cat,all,3\n"
    )
    report = make_shards("folder", raw, tmp_path / "out", workers=0, max_rejects=0.5)
    assert report.splits["train"].counts["samples"] == 3
    reject = pq.read_table(tmp_path / "out/train/rejects.parquet").to_pylist()
    assert [(one["source"], one["reason"]) for one in reject] == [
        ("b.mp4:1.6-9", "ends at 2.40 s, within the part from 1.6 s to 9 s (list.csv, line 4)")
    ]
    loader = video_loader(
        tmp_path / "out/train",
        clip=VideoClip(frames=2, stride=1, size=32),
        fields=("caption", "score", "labels", "start"),
        batch_size=3,
        shuffle=False,
    )
    batch = next(iter(loader))
    loader.close()
    numbers = zip(*(batch.fields[name].tolist() for name in ("score", "labels", "start")), strict=True)
    found = dict(zip(batch.fields["caption"], numbers, strict=True))
    assert found == {
        "first": (0.5, [0.0, 1.0, 1.0], 0.0),
        "second": (1.0, [0.0, 0.0, 1.0], 0.8),
        "all": (3.0, [1.0, 0.0, 0.0], 0.0),
    }


def test_several_labels_stay_right_when_samples_with_new_classes_are_added(tmp_path):
    """A class before theirs in the alphabet changes numbers, and no names."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    for n in range(3):
        cv2.imwrite(str(raw / f"{n}.png"), np.full((20, 24, 3), 40 * n, np.uint8))
    (raw / "list.csv").write_text("path,labels\n0.png,dog;rain\n1.png,rain\n")
    make_shards("image-folder", raw, out, workers=0)
    (raw / "list.csv").write_text("path,labels\n0.png,dog;rain\n1.png,rain\n2.png,cat;dog\n")
    add_sources("image-folder", raw, out, workers=0)
    names = Manifest.load(out / "train").info["label_names"]
    batch = next(iter(image_loader(out / "train", batch_size=3, fields=("labels",), shuffle=False)))
    found = {
        round(image.float().mean().item() / 40): {names[n] for n in row.nonzero().flatten()}
        for image, row in zip(batch.image, batch.fields["labels"], strict=True)
    }
    assert found == {0: {"dog", "rain"}, 1: {"rain"}, 2: {"cat", "dog"}}
    assert names.index("cat") > names.index("rain")
