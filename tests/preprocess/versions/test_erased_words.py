"""`erase --words`: words that only erased samples had are in no byte of any split of the job; all else is as it was."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from tokenizers import Tokenizer

from maskstream.pipelines import text_loader
from maskstream.preprocess import make_shards
from maskstream.preprocess.encode.text.tokenizer import Training
from maskstream.preprocess.versions import Erased, append, erase, merge
from maskstream.shards.checksummed import CHECKSUM, add_checksum, read_checksummed
from maskstream.shards.errors import DatasetError, ShardError
from maskstream.shards.format.dataset import read_dataset_json
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import read_tokenizer
from maskstream.shards.format.verify import verify
from maskstream.shards.media.npy import read_npy
from maskstream.shards.stores.open import open_store

from .killed_forks import check_every_kill
from .small_splits import contents
from .test_erasing import everything

SECRET = "zyxwvut quokkamarsupial Zürich-47115082"
FRAGMENTS = (
    "zyx",
    "xwv",
    "wvut",
    "quokk",
    "kkam",
    "marsup",
    "zürich",
    "47115082",
    "Zürich",
    "ürich",
    "ürich".encode(),
)
KINDS = ("wordpiece", "bpe")


def job(folder: Path, kind: str, n: int = 12, **more: object) -> Path:
    """The splits train and val of a job, of which one text of train has words that no other text has, and a label.

    more: what the json of another sample says.
    """
    rng = np.random.default_rng(3)
    words = ["the", "cat", "sat", "on", "mats", "and", "sang", "of", "winter", "supper", "kites", "ark"]
    (folder / "raw").mkdir(parents=True)
    for split, own in (("train", n), ("val", 4)):
        lines = [
            {"text": " ".join(rng.choice(words, 9)), "label": "ab"[i % 2], "id": f"{split}{i}"} for i in range(own)
        ]
        if split == "train":
            lines[2] |= more
            lines[5] |= {"text": f"the cat {SECRET} sat {SECRET} on {SECRET}", "label": "confidential", "id": "person5"}
        (folder / f"raw/{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    make_shards(
        "jsonl",
        folder / "raw",
        folder / "out",
        settings=(f"tokenizer=train:{kind}:500",),
        samples_per_shard=4,
        workers=0,
    )
    return folder / "out"


def key_of(split: Path) -> str:
    manifest = Manifest.load(split)
    return next(manifest.key(i) for i in range(len(manifest)) if manifest.sources()[i].as_py() == "person5")


def holds(out: Path) -> list[str]:
    """The files in which a part of a secret word, or the label, stands, also decoded or as bytes of a tokenizer."""
    byte_level = "".join({195: "Ã", 188: "¼"}.get(byte, chr(byte)) for byte in "ürich".encode())
    words = [*(one.encode() if isinstance(one, str) else one for one in FRAGMENTS), byte_level.encode()]
    words += [json.dumps(one)[1:-1].encode() for one in FRAGMENTS if isinstance(one, str)]
    words += [b"confidential", b"person5"]
    return sorted(name for name, data in everything(contents(out)).items() if any(word in data for word in words))


def ids_of(split: Path) -> dict[str, list[int]]:
    """The ids that the split's tokenizer gives for the texts, by key, and the tokens that it stores."""
    manifest = Manifest.load(split)
    tokenizer = Tokenizer.from_str(read_tokenizer(open_store(split), manifest.info).decode())
    found = {}
    for i in range(len(manifest)):
        if not manifest.is_removed(i):
            text = manifest.store.read(*manifest.member(i, "txt")).decode()
            found[manifest.key(i)] = tokenizer.encode(text, add_special_tokens=False).ids
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_words_that_no_other_sample_has_are_in_no_byte_of_the_job(kind: str, tmp_path: Path) -> None:
    out = job(tmp_path, kind)
    train, val = out / "train", out / "val"
    key, before, of_val = key_of(train), ids_of(train), ids_of(val)
    settings = {"length": 32, "batch_size": 3, "device": "cpu", "threads": 1, "seed": 2}
    with closing(text_loader(train, **settings)) as loader:
        state = loader.state_dict()
    assert {"train/tokenizer.json", "val/tokenizer.json", "train/dataset.json", "val/dataset.json"} <= {*holds(out)}
    found = erase(train, [key], words=True)
    assert (found.version, found.erased, found.labels, found.beside) == (2, 1, 1, (str(val),))
    assert found.tokens > 5
    assert holds(out) == []
    for split in (train, val):
        assert verify(split, decode=True).problems == []
        assert (split / "tokenizer.e2.json").is_file()
        assert not (split / "tokenizer.json").exists()
        info = read_dataset_json(split)
        assert [re.sub(r"erased/[0-9a-f]{8}-", "erased-", name) for name in info["label_names"]] == [
            "a",
            "b",
            "erased-2",
        ]
        assert read_dataset_json(split, 1)["label_names"] == info["label_names"]
        vocabulary = json.loads(read_tokenizer(open_store(split), info))["model"]["vocab"]
        assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
        assert sum(name.startswith("[ERASED ") for name in vocabulary) == found.tokens
    assert ids_of(train) == {name: ids for name, ids in before.items() if name != key}
    assert ids_of(val) == of_val
    with closing(text_loader(train, **settings)) as loader:
        loader.load_state_dict(state)
        assert list(loader)
    assert erase(train, [key], words=True) == Erased(version=2, erased=0, unknown=(key,))
    assert holds(out) == []


def test_words_of_other_samples_stay(tmp_path: Path) -> None:
    """A word that another sample has, of this split or of one beside it, is no secret, nor is its label."""
    out = job(tmp_path, "wordpiece")
    tokenizer, names = (out / "train/tokenizer.json").read_bytes(), read_dataset_json(out / "train")["label_names"]
    shutil.copytree(out / "train", out / "more")
    found = erase(out / "train", [key_of(out / "train")], words=True)
    assert (found.labels, found.tokens, found.beside) == (0, 0, ())
    assert (out / "train/tokenizer.json").read_bytes() == tokenizer
    assert read_dataset_json(out / "train")["label_names"] == names
    assert verify(out / "train").problems == []


def test_a_label_that_the_json_of_another_sample_names_stays(tmp_path: Path) -> None:
    out = job(tmp_path, "wordpiece", n=6, seen={"as": ["confidential"]})
    found = erase(out / "train", [key_of(out / "train")], words=True)
    assert (found.labels, found.tokens > 5) == (0, True)
    assert read_dataset_json(out / "train")["label_names"] == ["a", "b", "confidential"]


def test_a_label_of_pictures(tmp_path: Path) -> None:
    for i, label in enumerate(["x", "y", "y", "lone", "x"]):
        (tmp_path / "raw" / label).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (20, 20, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "raw" / label / f"{i}.png"), pixels)
    make_shards("image-folder", tmp_path / "raw", tmp_path / "out", workers=0, samples_per_shard=2)
    split = tmp_path / "out/train"
    manifest = Manifest.load(split)
    lone = next(i for i in range(5) if manifest.info["label_names"][manifest.label[i]] == "lone")
    there = {name for name, data in contents(split).items() if b"lone" in data}
    assert {"dataset.json", "versions/1.json", ".records/about.json"} <= there
    erased = erase(split, [manifest.key(lone)], words=True)
    assert erased.labels == 1
    assert [one.partition(",")[0] for one in erased.named] == ["run.json"]
    assert [name for name, data in everything(contents(split)).items() if b"lone" in data] == []
    assert verify(split, decode=True).problems == []


def captions(folder: Path, kind: str) -> Path:
    """A split of pictures with captions, of which one has words that no other has."""
    for i in range(8):
        path = folder / "raw/train" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.random.default_rng(i).integers(0, 255, (20, 20, 3), np.uint8))
        path.with_suffix(".txt").write_text(f"a small picture of {i} birds" + f" and {SECRET} and {SECRET}" * (i == 3))
    settings = (f"tokenizer=train:{kind}:400",)
    make_shards("image-text-folder", folder / "raw", folder / "out", settings=settings, workers=0, as_is=True)
    return folder / "out/train"


@pytest.mark.parametrize("kind", KINDS)
def test_captions_are_told_by_their_tokens(kind: str, tmp_path: Path) -> None:
    split = captions(tmp_path, kind)
    manifest = Manifest.load(split)
    (secret,) = [i for i in range(8) if "3" in manifest.sources()[i].as_py()]
    tokenizer = Tokenizer.from_str(read_tokenizer(open_store(split), manifest.info).decode())
    assert "quokk" in "".join(tokenizer.get_vocab())
    found = erase(split, [manifest.key(secret)], words=True)
    assert found.tokens > 5
    for piece in FRAGMENTS[:6]:
        held = [name for name, data in everything(contents(split)).items() if str(piece).encode() in data]
        assert held == [], piece
    assert verify(split, decode=True).problems == []
    after = Manifest.load(split)
    changed = Tokenizer.from_str(read_tokenizer(open_store(split), after.info).decode())
    for i in {*range(8)} - {secret}:
        ids = read_npy(after.store.read(*after.member(i, "texts.npy"))).tolist()
        assert tokenizer.decode(ids) == changed.decode(ids)
        assert "birds" in changed.decode(ids)


def test_a_caption_with_an_unknown_word_is_refused(tmp_path: Path) -> None:
    split = captions(tmp_path, "wordpiece")
    caption = tmp_path / "raw/train/3.txt"
    caption.write_text("a picture of " + "x" * 120)
    settings = ("tokenizer=" + str(split / "tokenizer.json"),)
    make_shards("image-text-folder", tmp_path / "raw", tmp_path / "more", settings=settings, workers=0, as_is=True)
    manifest = Manifest.load(tmp_path / "more/train")
    (long,) = [i for i in range(8) if "3" in manifest.sources()[i].as_py()]
    with pytest.raises(DatasetError, match="has words that cannot be recovered from its tokens"):
        erase(tmp_path / "more/train", [manifest.key(long)], words=True)


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_every_step_it_ends_in_the_same_files(every: int, tmp_path: Path) -> None:
    first = job(tmp_path / "first", "wordpiece", n=6)
    key = key_of(first / "train")

    def run(out: Path) -> None:
        erase(out / "train", [key], words=True)

    def check(out: Path) -> None:
        for split in (out / "train", out / "val"):
            assert Manifest.load(split).version in (1, 2)
            assert ids_of(split)

    assert holds(check_every_kill(first, run, steps=20, every=every, after_kill=check)) == []


def test_an_erasure_that_is_made_again_leaves_a_killed_one_beside_it_what_it_needs(tmp_path: Path) -> None:
    first = job(tmp_path / "first", "wordpiece", n=6)
    words, key = key_of(first / "train"), Manifest.load(first / "val").key(1)
    erase(first / "train", [words], words=True)

    def erase_again(out: Path) -> None:
        erase(out / "train", [words], words=True)
        assert ids_of(out / "val")

    check_every_kill(first, lambda out: erase(out / "val", [key]), steps=10, every=4, after_kill=erase_again)


def test_splits_are_still_appended_and_merged(tmp_path: Path) -> None:
    """The ids mean the same, so what was encoded with the first tokenizer still fits."""
    out = job(tmp_path, "wordpiece")
    shutil.copytree(out / "val", tmp_path / "other/val")
    (tmp_path / "other/val/.records").rename(tmp_path / "records")
    key = key_of(out / "train")
    merge(tmp_path / "both", [out / "train", out / "val"])
    erase(out / "train", [key], words=True)
    merge(tmp_path / "both", [out / "train", out / "val"])
    assert verify(tmp_path / "both").problems == []
    assert holds(tmp_path / "both") == []
    shutil.rmtree(tmp_path / "both")
    manifest = Manifest.load(tmp_path / "other/val")
    erase(out / "val", manifest.keys(range(len(manifest) - 1)))
    with pytest.raises(DatasetError, match="keys are in more than one split"):
        append(out / "val", tmp_path / "other/val")
    append(out / "train", tmp_path / "other/val")
    assert verify(out / "train").problems == []
    assert (out / "train/tokenizer.e2.json").is_file()


def test_a_tokenizer_that_is_not_trained_here_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    texts = [f"text {i} of many" for i in range(6)]
    (tmp_path / "raw/train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    given = json.loads(Training.parse("train:wordpiece:300").trained(texts))
    given["pre_tokenizer"] = {"type": "Whitespace"}
    (tmp_path / "t.json").write_text(json.dumps(given))
    settings = (f"tokenizer={tmp_path / 't.json'}",)
    make_shards("jsonl", tmp_path / "raw", tmp_path / "out", settings=settings, workers=0, as_is=True)
    split = tmp_path / "out/train"
    before, key = contents(tmp_path / "out"), Manifest.load(split).key(0)
    with pytest.raises(DatasetError, match=r"a tokenizer \(WordPiece, Whitespace\) that .* does not train, so"):
        erase(split, [key], words=True)
    assert contents(tmp_path / "out") == before
    assert erase(split, [key]).erased == 1


def test_what_a_killed_append_has_left_may_have_the_words(tmp_path: Path) -> None:
    out = job(tmp_path, "wordpiece")
    shutil.copytree(out / "val", out / ".adding-0123456789abcdef/val")
    with pytest.raises(DatasetError, match=r"was left by a killed `maskstream shards --append` and may contain"):
        erase(out / "train", [key_of(out / "train")], words=True)


@pytest.mark.parametrize("name", ["../../x.json", "tokenizer.json", 3, ["tokenizer.e2.json"]])
def test_a_description_names_no_other_file_as_its_tokenizer(tmp_path: Path, name: object) -> None:
    out = job(tmp_path, "wordpiece")
    info = read_checksummed((out / "val/dataset.json").read_bytes())
    info.pop(CHECKSUM, None)
    info["files"][str(name)] = {"size_bytes": 3, "xxh3_128": "0" * 32}
    (out / "val/dataset.json").write_bytes(add_checksum(info | {"tokenizer": name}))
    with pytest.raises(ShardError):
        read_dataset_json(out / "val")
