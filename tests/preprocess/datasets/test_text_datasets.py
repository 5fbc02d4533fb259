"""Raw datasets of texts: lines, rows and files."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskstream.preprocess.datasets.documents import jsonl, parquet_text
from maskstream.preprocess.datasets.folder import txt
from maskstream.shards.errors import DatasetError

from ..raw_files import labelled, put


def test_splits_by_line_by_file_and_by_folder(tmp_path):
    put(tmp_path / "train.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "split": "val", "label": "y"}])
    put(tmp_path / "validation" / "0.jsonl", [{"text": "c"}])
    put(tmp_path / "other.jsonl", [{"text": "d", "id": 7}])
    dataset = jsonl(tmp_path)
    assert (dataset.name, dataset.modality, dataset.label_names) == ("jsonl", "text", ("x", "y"))
    assert labelled(dataset) == {
        "train": [("7", None), ("train.jsonl:1", "x")],
        "val": [("train.jsonl:2", "y"), ("validation/0.jsonl:1", None)],
    }


def test_labels_that_are_numbers_keep_their_value(tmp_path):
    put(tmp_path / "a.jsonl", [{"text": "a", "label": 2}, {"text": "b", "label": 0}])
    dataset = jsonl(tmp_path)
    assert dataset.label_names == ("0", "1", "2")
    assert [s.label for s in dataset.splits["train"]] == [2, 0]


def test_rows_of_parquet_files(tmp_path):
    pq.write_table(pa.table({"text": ["a", "b"], "label": ["x", "y"]}), tmp_path / "val.parquet")
    assert labelled(parquet_text(tmp_path)) == {"val": [("val.parquet:0", "x"), ("val.parquet:1", "y")]}
    pq.write_table(pa.table({"words": ["a"]}), tmp_path / "val.parquet")
    with pytest.raises(DatasetError, match="needs a column 'text', got words"):
        parquet_text(tmp_path)


def test_a_folder_of_files(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "train" / "cat" / "a.txt").write_text("a")
    assert labelled(txt(tmp_path)) == {"train": [("train/cat/a.txt", "cat")]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"text": "a", "label": [1]}, "use a name or a number"),
        ({"text": "a", "label": -3}, "use a name or a number"),
        ({"text": "a", "split": "dev"}, "the split is 'dev'; use one of train, val, test"),
        ({"text": "a", "id": 1.5}, "must be text"),
        (
            {"text": "a", "label": 3_000_000_000},
            r"a\.jsonl, line or row 1: the label is 3000000000; use .* to 1048575",
        ),
        ({"text": "a", "label": 1 << 5000}, "the label is a number of 5001 bits"),
    ],
)
def test_lines_that_cannot_be_listed(tmp_path, line, message):
    put(tmp_path / "a.jsonl", [line])
    with pytest.raises(DatasetError, match=message):
        jsonl(tmp_path)


def test_names_and_numbers_do_not_mix_and_something_must_be_there(tmp_path):
    put(tmp_path / "a.jsonl", [{"text": "a", "label": 2}, {"text": "b", "label": "x"}])
    said = r"'x' in .*a\.jsonl, line or row 2 and 2 in .*a\.jsonl, line or row 1\. Use one kind"
    with pytest.raises(DatasetError, match=said):
        jsonl(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="contains no documents"):
        jsonl(tmp_path / "empty")
