"""Pictures with texts: tars as img2dataset writes them, folders, lists, Parquet and LLaVA's JSON, to the loader."""

import json

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from maskstream.pipelines import image_text_loader
from maskstream.preprocess import DATASETS, make_shards
from maskstream.preprocess.job.shards import find_dataset
from maskstream.preprocess.raw.tree import open_raw_tree
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.manifest import Manifest

from ..raw_files import put, put_all, tar_of

pytestmark = pytest.mark.usefixtures("cache")


def picture(n):
    return bytes(cv2.imencode(".jpg", np.full((20, 24, 3), 8 * n, np.uint8))[1])


def write_tar(path, numbers):
    """A shard of img2dataset."""
    members = {}
    for n in numbers:
        about = {"caption": f"a picture {n}", "url": f"https://x/{n}.jpg", "width": 24, "exif": {}, "sha256": "0"}
        members[f"{n:09d}.jpg"] = picture(n)
        members[f"{n:09d}.txt"] = f"a picture\n{n}".encode()
        members[f"{n:09d}.json"] = json.dumps(about).encode()
    put(path, tar_of(members))


def test_tars_of_img2dataset(tmp_path):
    """The table that img2dataset leaves beside a tar is no list."""
    table = pa.table({"url": ["x"] * 3, "key": ["1", "2", "3"], "caption": ["a"] * 3})
    for shard in range(2):
        write_tar(tmp_path / f"laion/{shard:05d}.tar", range(10 * shard, 10 * shard + 6))
        (tmp_path / f"laion/{shard:05d}_stats.json").write_text("{}")
        pq.write_table(table, tmp_path / f"laion/{shard:05d}.parquet")
    with open_raw_tree(tmp_path / "laion") as tree:
        sources = find_dataset(tree, DATASETS["image-text-folder"]).splits["train"]
    assert [(one.id, one.meta["caption"], one.meta["width"]) for one in sources[5:7]] == [
        ("000000005.jpg", "a picture 5", 24),
        ("000000010.jpg", "a picture 10", 24),
    ]
    words = {"settings": ["tokenizer=train:bpe:300"], "workers": 0}
    report = make_shards("image-text-folder", tmp_path / "laion", tmp_path / "out", **words)
    assert report.splits["train"].counts["samples"] == 12
    manifest = Manifest.load(tmp_path / "out/train")
    assert (manifest.info["modality"], manifest.label.tolist()) == ("image-text", [-1] * 12)
    assert seen(tmp_path / "out/train", ("caption",), ("url",)) == {
        n: (f"a picture {n}", f"https://x/{n}.jpg") for n in (*range(6), *range(10, 16))
    }


def test_folders_and_pictures_without_a_text(tmp_path):
    put_all(tmp_path, {f"{name}.jpg": picture(1) for name in ("train/a/1", "train/2", "val/3")})
    put_all(tmp_path, {"train/a/1.txt": "one", "val/3.json": {"caption": "three"}})
    found = DATASETS["image-text-folder"](tmp_path)
    assert {split: [one.meta["caption"] for one in some] for split, some in found.splits.items()} == {
        "train": ["one"],
        "val": ["three"],
    }
    assert [reject.source for reject in found.missing["train"]] == ["train/2.jpg"]
    (tmp_path / "val/3.json").write_text("[1]")
    with pytest.raises(DatasetError, match=r"3\.json must contain an object, got a list"):
        DATASETS["image-text-folder"](tmp_path)


def seen(split, roles, fields=()):
    """What the loader gives: the grey level of each picture, with the words of its texts and its fields."""
    words = Tokenizer.from_file(str(split / "tokenizer.json"))
    loader = image_text_loader(
        split, size=16, text=roles, length=32, fields=fields, batch_size=2, shuffle=False, device="cpu", threads=1
    )
    found = {}
    for batch in loader:
        for row, image in enumerate(batch.image):
            texts = batch.text.tokens[row][batch.text.roles[row] >= 0].tolist()
            values = tuple(batch.fields[name][row] for name in fields)
            found[round(image.float().mean().item() / 8)] = (words.decode(texts), *values)
    loader.close()
    return found


WORDS = {"settings": ["tokenizer=train:wordpiece:300"], "workers": 0}


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_imagefolder_of_hugging_face_with_texts(tmp_path, form):
    raw = tmp_path / "raw"
    (raw / "train").mkdir(parents=True)
    rows = [{"file_name": f"{n}.jpg", "text": f"number {n}", "score": n / 2} for n in range(1, 4)]
    for n in range(1, 4):
        (raw / f"train/{n}.jpg").write_bytes(picture(n))
    if form == "jsonl":
        text = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        text = "file_name,text,score\n" + "".join(f"{row['file_name']},{row['text']},{row['score']}\n" for row in rows)
    (raw / f"train/metadata.{form}").write_text(text)
    make_shards("image-text-folder", raw, tmp_path / "out", **WORDS)
    assert seen(tmp_path / "out/train", ("caption",), ("score",)) == {n: (f"number {n}", n / 2) for n in range(1, 4)}
    (raw / f"train/metadata.{form}").write_text(text.replace("text", "words"))
    with pytest.raises(DatasetError, match="has no texts"):
        DATASETS["image-text-folder"](raw)


@pytest.mark.parametrize("packed", ["bytes", "struct"])
def test_images_and_texts_in_parquet(tmp_path, packed, caplog):
    """As the Hub keeps them: bytes, or bytes and a path, and any of the usual columns of texts."""
    images = [picture(n) if packed == "bytes" else {"bytes": picture(n), "path": f"{n}.jpg"} for n in range(1, 5)]
    columns = {"image": images, "text": [f"number {n}" for n in range(1, 4)] + [None], "score": [1, 2, 3, 4]}
    (tmp_path / "raw").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "raw/train-00000-of-00001.parquet")
    DATASETS["parquet-image"](tmp_path / "raw")
    assert "the column 'text' becomes a field of the samples" in caplog.text
    assert "use the dataset parquet-image-text" in caplog.text
    report = make_shards("parquet-image-text", tmp_path / "raw", tmp_path / "out", **WORDS, max_rejects=0.5)
    assert report.splits["train"].counts["samples"] == 3
    assert seen(tmp_path / "out/train", ("caption",), ("score",)) == {n: (f"number {n}", n) for n in range(1, 4)}
    pq.write_table(pa.table({"image": images, "score": [1, 2, 3, 4]}), tmp_path / "raw/train-00000-of-00001.parquet")
    with pytest.raises(DatasetError, match="has the columns image, score, but none with texts; use caption, ques"):
        DATASETS["parquet-image-text"](tmp_path / "raw")


def test_several_captions_and_questions_in_parquet(tmp_path):
    rows = [
        {"image": picture(1), "question": "what is it", "answer": ["one", "a one"], "label": 3},
        {"image": picture(2), "question": "and this", "answer": ["two"], "label": 4},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    dataset = DATASETS["parquet-image-text"](tmp_path)
    assert dataset.doubt == ""
    assert [dict(one.meta) for one in dataset.splits["train"]] == [
        {name: row[name] for name in ("question", "answer")} for row in rows
    ]
    pq.write_table(pa.table({"image": [picture(1)], "captions": [["a one", "the one"]]}), tmp_path / "a.parquet")
    assert DATASETS["parquet-image-text"](tmp_path).splits["train"][0].meta == {"caption": ["a one", "the one"]}


def turns(*texts):
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]


LLAVA = [
    {"id": "1", "image": "coco/1.jpg", "conversations": turns("<image>\nWhat is it?", "One.", "Is it?", "Yes.")},
    {"id": "2", "image": "coco/2.jpg", "conversations": turns("Name it.\n<image>", "Two.")},
    {"id": "text", "conversations": turns("Hello.", "Hello, human.")},
]


def test_conversations_of_llava(tmp_path, caplog):
    raw = tmp_path / "raw"
    (raw / "images/coco").mkdir(parents=True)
    for n in (1, 2):
        (raw / f"images/coco/{n}.jpg").write_bytes(picture(n))
    (raw / "llava_instruct.json").write_text(json.dumps(LLAVA))
    make_shards("image-text-folder", raw, tmp_path / "out", **WORDS)
    assert "1 of 3 conversations have no image and are skipped" in caplog.text
    sources = DATASETS["image-text-folder"](raw).splits["train"]
    assert [one.id for one in sources] == ["coco/1.jpg:0", "coco/2.jpg:1"]
    assert [(one.meta["question"], one.meta["answer"], one.meta["id"]) for one in sources] == [
        (["What is it?", "Is it?"], ["One.", "Yes."], "1"),
        (["Name it."], ["Two."], "2"),
    ]
    assert {n: words for n, (words,) in seen(tmp_path / "out/train", ("answer",)).items()}.keys() == {1, 2}
    for wrong, says in (
        (turns("What is it?"), r"entry 0 has 1 questions and 0 answers; both numbers must be equal"),
        ([{"from": "robot", "value": "x"}], r"entry 0 has the turn .*robot.*, with one of human, user, gpt, assistant"),
    ):
        (raw / "llava_instruct.json").write_text(json.dumps([{**LLAVA[0], "conversations": wrong}]))
        with pytest.raises(DatasetError, match=says):
            DATASETS["image-text-folder"](raw)
    (raw / "llava_instruct.json").write_text(json.dumps([{**LLAVA[0], "image": "\ud800.jpg"}]))
    with pytest.raises(DatasetError, match=r"entry 0 has the image .*; it must be a path or a list of paths"):
        DATASETS["image-text-folder"](raw)


def test_lists_that_are_none_are_named(tmp_path):
    (tmp_path / "1.jpg").write_bytes(picture(1))
    (tmp_path / "llava.json").write_text("")
    (tmp_path / "a.jsonl").write_text('{"caption": "x"}\n')
    with pytest.raises(DatasetError, match=r"a\.jsonl, llava\.json there do not list images with texts"):
        DATASETS["image-text-folder"](tmp_path)


def test_a_conversation_in_parquet(tmp_path):
    rows = [{"image": picture(1), "conversations": turns("<image>\nWhat is it?", "One.")}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (source,) = DATASETS["parquet-image-text"](tmp_path).splits["train"]
    assert source.meta == {"question": ["What is it?"], "answer": ["One."]}
