"""Lists of datasets that are wrong: every error is a DatasetError that names the file, the line and what to do."""

import os
import re

import pytest

from maskstream.preprocess.datasets import DATASETS
from maskstream.preprocess.raw.lists import MAX_LABEL, convert_to_type, read_json, read_lines, read_list, read_table
from maskstream.shards.errors import DatasetError, OutageError

from ..raw_files import put, put_all, refused

HEAD = b"path,label,split\n"


def listed(root, data):
    for name in ("a.mp4", "b.mp4"):
        (root / name).touch()
    (root / "list.csv").write_bytes(data)
    return DATASETS["folder"](root)


def labels(dataset):
    return [(source.id, source.label) for source in dataset.splits["train"]]


@pytest.mark.parametrize(
    ("data", "line", "says"),
    [
        (HEAD + b"a.mp4,50000000,train\n", 2, "'50000000', which is not a whole number from 0 to 1048575"),
        (HEAD + b"a.mp4,1,train\nb.mp4,1048576,train\n", 3, "not a whole number from 0 to 1048575"),
        (HEAD + b"a.mp4,x,train\nb.mp4\n", 3, "1 values ('b.mp4') for the 3 columns path, label, split"),
        (HEAD + b"a.mp4,x,train\n\n,\n", 4, "2 values"),
        (HEAD + b"a.mp4,x,train\nb.mp4,Smith, John,train\n", 3, "quote values that contain commas"),
        (HEAD + b"a.mp4," + b"x" * 200_000 + b",train\n", 2, "field larger than field limit"),
        (HEAD + b"a.mp4," + b"x" * 2_000_000 + b",train\n", 2, "has more than 1048576 bytes"),
        (HEAD + b'a.mp4,"x,train\n' + b"b.mp4,y,train\n" * 20_000, None, "Look for an unclosed quote"),
        (HEAD + b"a.mp4,x,train\nb.mp4,x\0y,train\n", 3, "has a NUL byte; save the file as plain text in UTF-8"),
        (HEAD + b"a.mp4,caf\xe9,train\n", 2, "is not valid UTF-8 (byte 0xe9 at 9); save the file as UTF-8"),
        ((HEAD + b"a.mp4,x,train\n").decode().encode("utf-16"), 1, "is not valid UTF-8"),
        ((HEAD + b"a.mp4,x,train\n").decode().encode("utf-16-le"), 1, "has a NUL byte"),
        (HEAD + b"a.mp4,x,train\nb.mp4,y,train\na.mp4,y,train\n", 4, "the same path 'a.mp4' as line 2. Remove one"),
        (HEAD + b"a.mp4,x,train\n./a.mp4,x,val\n", 3, "as line 2. Remove"),
        (HEAD + b",x,train\n", 2, "has no path"),
        (HEAD + b"a.mp4,x,dev\n", 2, "the split 'dev'. Use one of train, val, test"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, data, line, says):
    with pytest.raises(DatasetError) as caught:
        listed(tmp_path, data)
    message = str(caught.value)
    assert says in message
    assert len(message) < 600
    assert f"{tmp_path / 'list.csv'}: line " in message
    assert line is None or f"list.csv: line {line} " in message


@pytest.mark.parametrize("head", [b"", b"\n", b"label\n", b"path,path\n"])
def test_a_wrong_head_is_said(tmp_path, head):
    with pytest.raises(DatasetError, match=r"no columns, but no 'path'|but no 'path'|'path' more than once"):
        listed(tmp_path, head + b"a.mp4,x\n" if head.startswith(b"path") else head)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lists_of_every_kind_are_read(tmp_path, end):
    data = b"\xef\xbb\xbf" + HEAD + b'a.mp4,"Smith, John",\n\nb.mp4,caf\xc3\xa9,train'
    dataset = listed(tmp_path, data.replace(b"\n", end))
    assert dataset.label_names == ("Smith, John", "caf\N{LATIN SMALL LETTER E WITH ACUTE}")
    assert labels(dataset) == [("a.mp4", 0), ("b.mp4", 1)]


def test_a_number_keeps_its_value_however_it_is_written(tmp_path):
    """`007` was no label at all: it was looked up among 0 to 7."""
    dataset = listed(tmp_path, HEAD + b"a.mp4,007,\nb.mp4,,\n")
    assert (len(dataset.label_names), labels(dataset)) == (8, [("a.mp4", 7), ("b.mp4", -1)])
    dataset = listed(tmp_path, HEAD + f"a.mp4,{MAX_LABEL},\n".encode())
    assert labels(dataset) == [("a.mp4", MAX_LABEL)]
    dataset = listed(tmp_path, HEAD + "a.mp4,\N{ARABIC-INDIC DIGIT THREE},\nb.mp4,3,\n".encode())
    assert labels(dataset) == [("a.mp4", 1), ("b.mp4", 0)]  # names, not numbers


def test_a_pipe_is_no_list(tmp_path):
    os.mkfifo(tmp_path / "list.csv")
    (tmp_path / "a.mp4").touch()
    assert labels(DATASETS["folder"](tmp_path)) == [("a.mp4", -1)]


@pytest.mark.parametrize(
    ("name", "files", "says"),
    [
        ("k400", {"train.csv": b"youtube_id,time_start,time_end\nabc,one,2\n"}, "train.csv: line 2 has the time_start"),
        ("k400", {"train.csv": b"youtube_id,time_start,time_end\nabc,inf,2\n"}, "not a number of seconds"),
        ("k400", {"train.csv": b"youtube_id,time_start,time_end\nabc\n"}, "train.csv: line 2 has 1 values"),
        ("k400", {"train.csv": "path,label\na,b\n"}, "has the columns path, label"),
        (
            "folder",
            dict.fromkeys(("a.csv", "b.csv"), "path\n7.webm\n"),
            "Merge them into one file with the columns path, l",
        ),
        (
            "esc50",
            {"meta/esc50.csv": b"filename,fold,target,category\na.wav,1,99999999,dog\n"},
            "line 2 has the target",
        ),
        ("esc50", {"meta/esc50.csv": b"filename,fold,target,category\na.wav,x,1,dog\n"}, "line 2 has the fold 'x'"),
        ("vggsound", {"vggsound.csv": b"abc,1,dog,train\nabc,one,dog,train\n"}, "line 2 has the start 'one'"),
        ("vggsound", {"vggsound.csv": b"abc,1,dog,dev\n"}, "line 1 has the split 'dev'"),
        ("vggsound", {"vggsound.csv": b"abc,1,dog\n"}, "line 1 has 3 values"),
        ("ucf101", {"classInd.txt": b"1 caf\xe9\n"}, "classInd.txt: line 1 is not valid UTF-8"),
        ("ucf101", {"classInd.txt": "\N{SUPERSCRIPT TWO} A\n".encode()}, "classInd.txt has the line"),
        (
            "hmdb51",
            {"run_test_split1.txt": b"a.avi 1\nb.avi 9\n"},
            "split1.txt: line 2 is 'b.avi 9'; it must be a file and 0, 1 or 2",
        ),
        ("hmdb51", {"run_test_split1.txt": b"a.avi 1\n\xff 1\n"}, "run_test_split1.txt: line 2 is not valid UTF-8"),
        ("ssv2", {"labels.json": b"[" * 100_000}, "labels.json is not valid JSON (it is nested too deeply)"),
        ("ssv2", {"labels.json": b"\xff\xfe\x00"}, "labels.json is not valid JSON"),
        ("ssv2", {"labels.json": b'{"a": "x"}'}, "not 0 to 0"),
        ("ssv2", {"labels.json": {"a": "4"}}, "not 0 to 0"),
        ("ssv2", {"labels.json": {"a": "0"}}, "there is no train.json"),
        ("ssv2", {"labels.json": {"a": "0"}, "train.json": [{"id": "7", "template": "[b]"}]}, "labels.json contains"),
        ("ssv2", {"labels.json": {"a": "0"}, "train.json": "["}, "train.json is not valid JSON"),
        ("ssv2", {"labels.json": b'{"a": ' + b"9" * 5000 + b"}"}, "labels.json is not valid JSON"),
        ("ssv2", {"labels.json": b'{"a": 0}', "train.json": b'["x"]', "validation.json": b"[1]"}, "the entry x has no"),
        ("meshgraphnets", {"meta.json": b'{"a":' * 100_000}, "meta.json is not valid JSON (it is nested too deeply)"),
        ("meshgraphnets", {"meta.json": b"[]"}, "meta.json is malformed"),
        ("shapenet", {"02691156/m/model.obj": b"", "all.csv": b"synsetId,modelId,split\n1,2\n"}, "line 2 has 2 values"),
        (
            "audioset",
            {"class_labels_indices.csv": b"index,mid,display_name\nx,/m/0,Dog\n", "balanced_train_segments.csv": b""},
            "class_labels_indices.csv: line 2 has the index 'x'",
        ),
        (
            "audioset",
            {
                "class_labels_indices.csv": b"index,mid,display_name\n0,/m/0,Dog\n",
                "balanced_train_segments.csv": b'# YTID, ...\n# x\nabc, 1.0, 11.0, "/m/0"\nabc, nan, 2, "/m/0"\n',
            },
            "line 4 has the start 'nan'",
        ),
    ],
)
def test_lists_of_published_datasets(tmp_path, name, files, says):
    put_all(tmp_path, {"7.webm": b"", **files})
    assert says in refused(name, tmp_path)


def test_a_list_that_cannot_be_read(tmp_path):
    (tmp_path / "x.csv").mkdir()
    for read in (lambda path: list(read_table(path, ())), lambda path: list(read_lines(path)), read_json):
        for name in ("x.csv", "y.csv"):
            with pytest.raises(OutageError, match=rf"{name} cannot be read"):
                read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "path,speed\na,1.5\nb,1e400\n", "a.csv: line 3 has the speed '1e400', but float64 only holds"),
        ("a.csv", "path,speed\na,1.5\nb,9007199254740993\n", "line 3 has the speed '9007199254740993' among fractions"),
        ("a.jsonl", '{"path": "a", "n": 1}\n{"path": "b", "n": 9223372036854775808}\n', "line 2 has the n '92233"),
        ("a.jsonl", '{"path": "a", "n": [18446744073709551616]}\n', "line 1 has the n '18446"),
        ("a.csv", 'path,n\na,"[18446744073709551616, 1]"\n', "line 2 has the n '[18446744073709551616, 1]'"),
        ("a.jsonl", '{"path": "a", "n": 1e400}\n', "line 1 is not valid JSON (1e400 is too large: float64 holds"),
    ],
)
def test_a_number_that_no_type_holds_is_named_with_its_line(tmp_path, name, text, says):
    put(tmp_path / name, text)
    with pytest.raises(DatasetError, match=re.escape(says)):
        typed_columns(tmp_path / name)


def typed_columns(path):
    rows = read_list(path)
    return [convert_to_type(rows, column) for column in rows[0].values]
