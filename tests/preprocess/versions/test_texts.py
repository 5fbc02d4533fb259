"""Versions of splits of texts: the tokenizer stays beside dataset.json, and other tokenizers are refused."""

import json

import pytest

from maskstream.pipelines import text_loader
from maskstream.preprocess import make_shards
from maskstream.preprocess.encode.text.tokenizer import Training
from maskstream.preprocess.versions import add_sources, append, merge
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.verify import verify


def write(folder, first, last, name="train"):
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"text": f"text {i} of so many words", "id": f"t{i}"}) for i in range(first, last)]
    (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "t.json").write_bytes(Training.parse("train:bpe:300").trained(["text 12 of so many words"]))
    return (f"tokenizer={tmp_path / 't.json'}",)


def samples(location):
    loader = text_loader(location, length=32, packing="row", batch_size=4, shuffle=False, device="cpu", threads=1)
    return sum(len(batch) if batch.weight is None else int(batch.weight.sum()) for batch in loader)


def test_texts_are_merged_appended_and_added(tmp_path, settings):
    for name, first, last in (("a", 0, 12), ("b", 12, 20)):
        make_shards(
            "jsonl", write(tmp_path / name, first, last), tmp_path / f"{name}-out", settings=settings, workers=0
        )
    one, two = tmp_path / "a-out" / "train", tmp_path / "b-out" / "train"
    merge(tmp_path / "both", [one, two])
    assert samples(tmp_path / "both") == 20
    assert verify(tmp_path / "both").problems == []
    append(two, one)
    assert samples(two) == 20
    write(tmp_path / "a", 20, 23, name="more")
    (tmp_path / "t.json").write_bytes((one / "tokenizer.json").read_bytes())
    report = add_sources("jsonl", tmp_path / "a", tmp_path / "a-out", settings=settings, workers=0)
    assert "3 samples added" in report.splits["train"].state
    assert samples(one) == 15


def test_another_tokenizer_is_refused(tmp_path, settings):
    make_shards("jsonl", write(tmp_path / "a", 0, 12), tmp_path / "out", settings=settings, workers=0)
    other = ("tokenizer=train:bpe:400",)
    make_shards("jsonl", write(tmp_path / "b", 12, 20), tmp_path / "other", settings=other, workers=0)
    with pytest.raises(DatasetError, match="was encoded with"):
        append(tmp_path / "out" / "train", tmp_path / "other" / "train")
    with pytest.raises(DatasetError, match="different settings"):
        add_sources("jsonl", write(tmp_path / "a", 20, 23, name="more"), tmp_path / "out", settings=other, workers=0)
