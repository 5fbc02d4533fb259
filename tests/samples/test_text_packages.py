"""Texts that packages hold: how they are cut into documents, and what shares a split."""

import json
from importlib import import_module

import pytest

from maskstream.samples.text.kept_lines import choose_split, kept_lines
from maskstream.shards.errors import DatasetError

from ..preprocess.raw_files import tar_of

shakespeare, vader = (import_module(f"maskstream.samples.text.{name}") for name in ("shakespeare", "vader"))


def test_passages_hold_every_paragraph_once():
    text = "\n\n".join(f"{i} {'word ' * (i * 7 % 90)}".strip() for i in range(60))
    found = shakespeare.passages(text.replace("\n", "\r\n"))
    assert "\n\n".join(found) == text
    assert all(len(one) >= shakespeare.LETTERS for one in found[:-1])


def test_works_are_held_out_whole_and_what_shares_poems_together(tmp_path):
    names = ["hamlet", "macbeth", "lear", "tempest", "othello", *shakespeare._TOGETHER]
    for name in names:
        (tmp_path / f"{name}_gut.txt").write_text("\n\n".join(["speech " * 150] * 9))
    (tmp_path / "hamlet_gut_f.txt").write_text("other spelling")
    splits = {}
    for line in shakespeare.lines(tmp_path):
        splits.setdefault(line["id"].partition(":")[0], set()).add(line["split"])
    assert sorted(splits) == sorted(names)
    assert all(len(one) == 1 for one in splits.values())
    assert {one for many in splits.values() for one in many} == {"train", "val"}
    assert len({frozenset(splits[name]) for name in shakespeare._TOGETHER}) == 1


def test_rated_sentences():
    rows = "".join(f"{i // 3}_{i % 3}\t{i / 100 - 2}\tSentence {i}.\r\n" for i in range(300))
    found = list(vader.lines(tar_of({f"hutto/{name}_GroundTruth.txt": rows.encode() for name in vader.FILES}, "w:gz")))
    assert len(found) == 1200
    assert found[0] == {
        "id": "film:0_0",
        "text": "Sentence 0.",
        "label": "film",
        "split": found[0]["split"],
        "rating": -2,
    }
    of_review = {}
    for line in found:
        of_review.setdefault(line["id"].rpartition("_")[0], set()).add(line["split"])
    assert all(len(splits) == 1 for splits in of_review.values())
    assert {split for splits in of_review.values() for split in splits} == {"train", "val"}
    with pytest.raises(DatasetError, match="contains no movieReview"):
        list(vader.lines(tar_of({}, "w:gz")))


def test_documents_are_made_once(tmp_path):
    made = []

    def make(root):
        made.append(root)
        return [{"text": f"text {i}", "id": f"{i}", "split": choose_split(f"{i}", 0.3)} for i in range(40)]

    first, second = kept_lines("x", tmp_path, make), kept_lines("x", tmp_path, make)
    assert made == [tmp_path]
    assert first == second
    assert {*first.splits} == {"train", "val"}
    kept = (tmp_path / "documents" / "x.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in kept] == [f"{i}" for i in range(40)]
