"""Images with texts that are downloaded or drawn: easy-vqa, stamps and their words, scenes of stamps."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskstream.preprocess.datasets.dataset import number_answers
from maskstream.preprocess.encode.encoder import prepared
from maskstream.preprocess.encode.image_text.encoder import ImageTextEncoder
from maskstream.preprocess.source import RejectError, Source
from maskstream.samples.image_text.easy_vqa import DrawnQuestion
from maskstream.samples.image_text.scene import draw_scene
from maskstream.samples.image_text.scenes import SEEN, STAMPS, counting, draw_referring, extract_noun
from maskstream.shards.media.npy import read_npy

NOUNS_OF_STAMPS = [f"noun{i}" for i in range(STAMPS)]
STAMP_PATHS = {noun: Path(f"{noun}.png") for noun in NOUNS_OF_STAMPS}


@pytest.mark.parametrize(
    ("text", "answer", "kind", "told"),
    [
        ("what is the blue shape?", "circle", "shape", {"blue", "circle"}),
        ("what color is the rectangle?", "teal", "colour", {"teal", "rectangle"}),
        ("is there a red shape?", "yes", "yes/no", {"red"}),
        ("is there a red shape?", "no", "yes/no", set()),
        ("is there not a red shape?", "no", "yes/no", {"red"}),
        ("is no triangle present?", "yes", "yes/no", set()),
        ("is no triangle present?", "no", "yes/no", {"triangle"}),
    ],
)
def test_what_a_question_of_easy_vqa_tells(text, answer, kind, told):
    question = DrawnQuestion(image=0, text=text, answer=answer)
    assert (question.kind, question.told) == (kind, told)


def test_frequent_answers_of_train_are_the_classes():
    def source(answer):
        return Source(id="x", path=Path("x"), meta={"answer": answer})

    splits = {"train": [source("b"), source("B "), source(["a", "c"]), source("a")], "val": [source("c"), source("b")]}
    names, labelled = number_answers(splits)
    assert names == ("a", "b")
    assert [one.label for one in labelled["train"]] == [1, 1, 0, 0]
    assert [one.label for one in labelled["val"]] == [-1, 1]
    splits["train"].append(source("d"))
    assert number_answers(splits)[0] == ("a", "b", "d")


def test_the_noun_of_a_caption():
    assert [extract_noun(one) for one in ("A lion.", "An onion!", "Two cats.", "the Moon")] == [
        "lion",
        "onion",
        "two cats",
        "moon",
    ]


def things_of(source):
    """Noun, x, y and longer side of each thing of a scene."""
    return [(source.files[file].stem, *place) for file, *place in source.meta["scene"]["things"]]


def test_a_scene_follows_from_its_number_and_says_which_of_two():
    scenes = [draw_referring("train", i, STAMP_PATHS) for i in range(200)]
    assert scenes == [draw_referring("train", i, STAMP_PATHS) for i in range(200)]
    assert scenes[0] != draw_referring("val", 0, STAMP_PATHS)
    said = Counter()
    for one in scenes:
        things, phrases = things_of(one), one.meta["phrase"]
        assert len(set(phrases)) == len(phrases) == len(things)
        assert {noun for noun, *_ in things} <= {*NOUNS_OF_STAMPS[:SEEN]}
        for words, (noun, x, y, longer) in zip(phrases, things, strict=True):
            others = [place for place in things if place[0] == noun and place[1:] != (x, y, longer)]
            assert min(x, y) >= 0 and max(x, y) + longer <= 128  # noqa: PT018
            where = words.removeprefix("the ").removesuffix(noun).strip()
            assert (where == "") == (not others)
            for _, ox, oy, olonger in others:
                less = {"left": (x, ox), "right": (ox, x), "upper": (y, oy), "lower": (oy, y)}
                less |= {"small": (1.3 * longer, olonger + 0.1), "large": (1.3 * olonger, longer + 0.1)}
                assert less[where][0] < less[where][1]
            said[where] += 1
    assert set(said) == {"", "left", "right", "upper", "lower", "small", "large"}
    assert min(said.values()) >= 10


def test_phrases_of_unseen_scenes_are_of_other_stamps_alone():
    for one in (draw_referring("unseen", i, STAMP_PATHS) for i in range(50)):
        things = things_of(one)
        assert {things[i][0] for i in one.meta["of"]} == {noun for noun, *_ in things} & {*NOUNS_OF_STAMPS[SEEN:]}
        assert len(one.meta["of"]) == len(one.meta["phrase"]) in (1, 2)


def test_a_question_about_a_scene_has_the_answer_that_its_rationale_gives():
    kinds = Counter()
    for i in range(300):
        one = counting("train", i, STAMP_PATHS)
        shown = ["nothing"] * 4
        for noun, x, y, _ in things_of(one):
            shown[y // 64 * 2 + x // 64] = noun
        meta = one.meta
        listed, _, _ = meta["rationale"].partition(": ")
        assert listed == ", ".join(shown)
        named = [word.strip("?") for word in meta["question"].split() if word.startswith("noun")]
        counts = [shown.count(noun) for noun in named]
        right = {
            "count": lambda counts=counts: ["none", "once", "twice", "three", "four"][counts[0]],
            "more": lambda counts=counts: "yes" if counts[0] > counts[1] else "no",
            "beside": lambda shown=shown, named=named: shown[{0: 1, 1: 0, 2: 3, 3: 2}[shown.index(named[0])]],
        }
        assert meta["answer"] == right[meta["kind"]]()
        kinds[meta["kind"], meta["answer"] in ("yes", "once", "nothing")] += 1
    assert len(kinds) == 6
    assert min(kinds.values()) > 10


def test_the_boxes_of_a_scene_are_where_its_things_are(tmp_path):
    for name, (blue, width) in {"a": (0, 20), "b": (120, 10)}.items():
        pixels = np.full((40, 60, 3), 255, np.uint8)
        pixels[5:25, 7 : 7 + width] = (blue, 50, 50)
        cv2.imwrite(str(tmp_path / f"{name}.png"), pixels)
    meta = {
        "scene": {"side": 100, "things": [[0, 10, 20, 30], [1, 60, 50, 40]]},
        "phrase": ["the second", "the first", "this again"],
        "of": [1, 0, 1],
    }
    source = Source(id="s", path=tmp_path / "a.png", parts=(tmp_path / "b.png",), meta=meta, made_by=draw_scene)
    encoder = prepared(ImageTextEncoder(tokenizer="train:wordpiece:300"), {"train": [source]})
    members = encoder.encode(source).members
    assert [*members] == ["png", "texts.npy", "words.npy", "boxes.npy", "segments.npy"]
    shown = cv2.imdecode(np.frombuffer(members["png"].data, np.uint8), cv2.IMREAD_COLOR)
    for box, blue in zip(read_npy(members["boxes.npy"].data), (120, 0, 120), strict=True):
        ys, xs = np.nonzero(shown[..., 0] == blue)
        assert (box * 100).round().tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    segments = np.unpackbits(read_npy(members["segments.npy"].data), axis=-1, count=100)
    for segment, blue in zip(segments, (120, 0, 120), strict=True):
        assert segment.tolist() == (shown[..., 0] == blue).tolist()
    for change, why in (({"of": [2, 0, 0]}, "refer to the objects"), ({"scene": {"side": 9}}, "is not a scene")):
        with pytest.raises(RejectError, match=why):
            encoder.encode(replace(source, meta={**meta, **change}))
    far = {"side": 100, "things": [[0, 90, 20, 30]]}
    with pytest.raises(RejectError, match="does not fit in 100x100"):
        encoder.encode(replace(source, meta={**meta, "scene": far, "of": [0, 0, 0]}))
