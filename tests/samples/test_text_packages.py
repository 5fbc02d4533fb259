"""Texts that packages hold: how they are cut into documents, and what shares a split."""

import gzip
import io
import json
import tarfile
from importlib import import_module

import pytest

from maskstream.samples.text.kept_lines import choose_split, kept_lines
from maskstream.shards.errors import DatasetError

names = ("dictionaries", "linux_doc", "shakespeare", "spam_assassin", "vader")
dictionaries, linux_doc, shakespeare, spam_assassin, vader = (
    import_module(f"maskstream.samples.text.{name}") for name in names
)

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def digits(n):
    return (digits(n // 64) if n >= 64 else "") + DIGITS[n % 64]


def dictionary(folder, *named):
    """A dictionary of (headwords, text) in dictd's format."""
    index, text = "00-database-short\tA\tA\n", ""
    for words, entry in named:
        index += "".join(f"{word.lower()}\t{digits(len(text))}\t{digits(len(entry))}\t{word}\n" for word in words)
        text += entry
    (folder / "d.index").write_text(index)
    (folder / "d.dict.dz").write_bytes(gzip.compress(text.encode()))


def test_the_entries_of_a_dictionary(tmp_path):
    text = 'Leo \\Le"o\\, n.\n   The Lion. A leo, not Leonine.\n'
    dictionary(tmp_path, (("Leo", "Lion"), text), (("!",), "bang\n" * 40))
    first, second = dictionaries.lines(tmp_path, "d")
    assert first["text"] == text.strip()
    assert (first["headword"], first["headwords"]) == ("Leo", "Leo; Lion")
    assert first["definition"] == "~, n.\n   The ~. A ~, not Leonine."
    assert second["text"].count("bang") == 40
    assert second["id"] == f"!:{len(text)}"


def test_entries_that_share_a_headword_share_a_split(tmp_path):
    named = [((f"w{i}", f"w{i + 1}") if i % 3 else (f"w{i}",), f"text {i}\n") for i in range(300)]
    dictionary(tmp_path, *named)
    found = list(dictionaries.lines(tmp_path, "d"))
    of_word = {}
    for line in found:
        for word in line["headwords"].split("; "):
            of_word.setdefault(word, set()).add(line["split"])
    assert all(len(splits) == 1 for splits in of_word.values())
    assert {line["split"] for line in found} == {"train", "val"}


def test_a_chain_of_many_entries_is_for_training(tmp_path):
    dictionary(tmp_path, *(((f"w{i}", f"w{i + 1}"), f"text {i}\n") for i in range(60)))
    assert {line["split"] for line in dictionaries.lines(tmp_path, "d")} == {"train"}


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


def test_pages_of_documentation(tmp_path):
    for name in ("a/one.rst", "translations/it/one.rst", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"Page {name}\n")
    (tmp_path / "two.rst.gz").write_bytes(gzip.compress(b"Two\n"))
    found = [(line["id"], line["text"], line["section"]) for line in linux_doc.lines(tmp_path)]
    assert found == [("a/one", "Page a/one.rst", "a"), ("two", "Two", "two")]


def archive(files):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"hutto/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return data.getvalue()


def test_rated_sentences():
    rows = "".join(f"{i // 3}_{i % 3}\t{i / 100 - 2}\tSentence {i}.\r\n" for i in range(300))
    found = list(vader.lines(archive({f"{name}_GroundTruth.txt": rows for name in vader.FILES})))
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
    with pytest.raises(DatasetError, match="holds no movieReview"):
        list(vader.lines(archive({})))


def test_mails_lose_their_headers():
    mail = "From a@b Mon\nReceived: from x\n\tby y\nSubject: offer\n\nDear friend,\n\nbuy: now\n"
    assert spam_assassin.body(mail) == "Dear friend,\n\nbuy: now"
    assert spam_assassin.body(mail.replace("\n", "\r\n")) == "Dear friend,\n\nbuy: now"
    assert spam_assassin.alike("<b>BUY</b> 12 now!") == spam_assassin.alike("buy 99 NOW") == "buynow"


def test_mails_by_folder(tmp_path):
    for group in spam_assassin.GROUPS:
        (tmp_path / "data" / group).mkdir(parents=True)
        (tmp_path / "data" / group / "1.txt").write_text(f"To: me\n\nbody of {group}")
    found = {line["id"]: (line["label"], line["text"]) for line in spam_assassin.lines(tmp_path)}
    assert found["spam-2/1"] == ("spam", "body of spam-2")
    assert found["hard-ham-1/1"] == ("ham", "body of hard-ham-1")


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
