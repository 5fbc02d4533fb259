"""The loader of images with texts: rows of roles, boxes under crops, masks of both parts, texts to judge."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from tokenizers import Tokenizer

from maskstream.pipelines import image_text_loader, masks
from maskstream.pipelines.augment import CenterCrop, RandomResizedCrop
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.pipelines.modalities.image_text.strategies import STRATEGIES
from maskstream.preprocess.encode.image_text.encoder import ImageTextEncoder
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import Sample
from maskstream.shards.media.npy import read_npy
from maskstream.shards.members.arrays import array_member
from maskstream.shards.members.text import ROLES, json_member

from ...every_modality import write_split
from ...small_media import SAMPLES
from ...small_texts import image_text_encoder, image_text_source, segment_member

PHRASE, QUESTION, ANSWER, RATIONALE = map(ROLES.index, ("phrase", "question", "answer", "rationale"))


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split("image-text", tmp_path_factory.mktemp("image-text"))


@pytest.fixture(scope="module")
def said(split):
    """What the json of each sample says, by key."""
    manifest = Manifest.load(split)
    read = manifest.store.read
    return {manifest.key(i): json.loads(read(*manifest.member(i, "json"))) for i in range(SAMPLES)}


@pytest.fixture(scope="module")
def tokenizer(split):
    return Tokenizer.from_str((split / "tokenizer.json").read_text())


def opened(split, **options):
    settings = {"size": 32, "patch": 8, "length": 24, "batch_size": 5, "seed": 5, "threads": 1, "device": "cpu"}
    return image_text_loader(split, **settings | options)


def texts(rows, i, tokenizer):
    """Role and words of each text of a row, between the special tokens."""
    tokens, roles = rows.tokens[i].tolist(), rows.roles[i].tolist()
    found, last = [], None
    for token, role in zip(tokens, roles, strict=True):
        if role >= 0 and role == last:
            found[-1][1].append(token)
        elif role >= 0:
            found.append((role, [token]))
        last = role
    return [(role, tokenizer.decode(ids)) for role, ids in found]


def plain(text, tokenizer):
    return tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids)


def test_a_row_has_a_text_of_each_role_and_an_answer_is_that_of_its_question(split, said, tokenizer):
    loader = opened(split, text=("question", "phrase"), target=("answer",), target_length=12)
    shown = {}
    for _ in range(6):
        for batch in loader:
            for i, key in enumerate(batch.key):
                (first, question), (second, phrase) = texts(batch.text, i, tokenizer)
                assert (first, second) == (QUESTION, PHRASE)
                known = [plain(one, tokenizer) for one in said[key]["question"]]
                answers = [plain(one, tokenizer) for one in said[key]["answer"]]
                assert phrase == plain(said[key]["phrase"], tokenizer)
                ((role, answer),) = texts(batch.target, i, tokenizer)
                assert role == ANSWER
                assert (question, answer) in set(zip(known, answers, strict=True))
                shown.setdefault(key, set()).add((question, answer))
    several = [key for key in said if len(set(said[key]["answer"])) == 3 and key in shown]
    assert several
    assert all(len(shown[key]) > 1 for key in several)


def test_a_row_begins_and_ends_its_texts_by_special_tokens_and_is_padded(split):
    batch = next(iter(opened(split, text=("phrase", "question"))))
    for i in range(len(batch)):
        tokens, roles = batch.text.tokens[i].numpy(), batch.text.roles[i].numpy()
        length = int(batch.text.valid[i].sum())
        assert tokens[0] == 2
        assert tokens[length - 1] == 3
        assert (roles[length:] == -2).all()
        assert (tokens[length:] == 0).all()
        assert (batch.text.words[i] < 0).numpy().tolist() == (roles < 0).tolist()
        own = batch.text.words[i][batch.text.words[i] >= 0]
        assert own[0] == 0
        assert {*np.diff(own).tolist()} <= {0, 1}
        ends = np.flatnonzero(tokens[:length] == 3)
        assert {int(roles[at - 1]) for at in ends} == {PHRASE, QUESTION}


def test_a_row_that_is_too_long_is_cut_at_its_end(split, said, tokenizer):
    batch = next(iter(opened(split, text=("phrase", "caption"), length=10, shuffle=False)))
    for i, key in enumerate(batch.key):
        whole = [tokenizer.encode(said[key][role], add_special_tokens=False).ids for role in ("phrase", "caption")]
        room = 10 - 3 - len(whole[0])
        assert batch.text.tokens[i].tolist() == [2, *whole[0], 3, *whole[1][:room], 3]


def marked(raw):
    """Pictures of a white rectangle on black, which is the box of their phrase."""
    samples = []
    for i in range(SAMPLES):
        rng = np.random.default_rng(i)
        x, y, w, h = (int(rng.integers(low, high)) for low, high in ((5, 40), (5, 30), (16, 30), (16, 30)))
        pixels = np.zeros((80, 100, 3), np.uint8)
        pixels[y : y + h, x : x + w] = 255
        cv2.imwrite(str(raw / f"{i}.png"), pixels)
        source = replace(image_text_source(i, raw / f"{i}.png"), id=f"{i}")
        source = replace(source, meta={**source.meta, "box": [[x, y, w, h]]})
        made = image_text_encoder().encode(source)
        members = {**made.members, "json": json_member({**source.meta, **made.meta})}
        members["segments.npy"] = segment_member(100, 80, x, y, w, h)
        samples.append(Sample(key=f"s{i}", members=members, source=f"{i}"))
    return samples


@pytest.mark.parametrize("crop", [CenterCrop(flip=1.0), RandomResizedCrop(scale=(0.4, 1.0), flip=0.5)])
def test_box_and_segment_are_where_their_phrase_is_after_crops_and_flips(tmp_path, crop):
    split = write_split("image-text", tmp_path, marked)
    size, seen = 64, 0
    for batch in opened(split, text=("phrase",), size=size, augment=crop, segments=True):
        for image, box, segment in zip(batch.image.numpy(), batch.box.numpy(), batch.segment.numpy(), strict=True):
            assert (segment == (image[..., 0] > 127)).mean() > 0.97
            ys, xs = np.nonzero(image[..., 0] > 127)
            if len(xs) < 30:
                continue
            found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / size
            np.testing.assert_allclose(box, found, atol=1.6 / size)
            seen += 1
    assert seen > 8


def test_the_box_has_its_own_ratio_and_words_are_hidden_whole(split):
    image, text = masks.Padded(mask=masks.Box(inside=1.0, outside=0.0, margin=0)), masks.WholeWords(ratio=0.4)
    text = masks.Padded(mask=masks.Replace(mask=text, keep=0.0, random=0.0))
    batch = next(iter(opened(split, text=("phrase", "question"), image_mask=image, text_mask=text, size=64)))
    for i in range(len(batch)):
        x0, y0, x1, y1 = (batch.box[i] * 8).int().tolist()
        inside = np.zeros((8, 8), bool)
        inside[y0:y1, x0:x1] = True
        assert batch.image_mask.masked[i].reshape(8, 8).tolist() == inside.tolist()
        hidden = batch.text_mask.masked[i]
        assert hidden.any()
        assert not hidden[batch.text.words[i] < 0].any()
        assert (batch.inputs[i][hidden] == 4).all()
        for word in batch.text.words[i][hidden].unique():
            assert hidden[batch.text.words[i] == word].all()


def test_the_mask_of_a_part_is_the_same_whatever_the_other_part_has(split):
    image, text = masks.Random(ratio=0.5), masks.Padded(mask=masks.WholeWords(ratio=0.3))
    both, first, second = (
        next(iter(opened(split, **chosen)))
        for chosen in ({"image_mask": image, "text_mask": text}, {"image_mask": image}, {"text_mask": text})
    )
    assert both.image_mask.masked.equal(first.image_mask.masked)
    assert both.text_mask.masked.equal(second.text_mask.masked)
    assert first.text_mask is None
    assert second.image_mask is None
    later = next(iter(opened(split, image_mask=image, text_mask=text, seed=6, shuffle=False)))
    sooner = next(iter(opened(split, image_mask=image, text_mask=text, seed=5, shuffle=False)))
    assert later.key == sooner.key
    assert not later.image_mask.masked.equal(sooner.image_mask.masked)
    assert not later.text_mask.masked.equal(sooner.text_mask.masked)


def test_half_of_the_pairs_match_and_the_others_are_texts_of_other_samples(split, said, tokenizer):
    own = {key: plain(one["phrase"], tokenizer) for key, one in said.items()}
    matches = []
    loader = opened(split, text=("phrase",), pairs=True)
    for _ in range(20):
        for batch in loader:
            for i, key in enumerate(batch.key):
                ((_, judged),) = texts(batch.pair, i, tokenizer)
                assert judged in own.values()
                assert bool(batch.match[i]) == (judged == own[key])
                matches.append(bool(batch.match[i]))
    equal = sum(a == b for x, a in own.items() for y, b in own.items() if x != y) / (SAMPLES * (SAMPLES - 1))
    assert len(matches) == 20 * SAMPLES
    assert abs(np.mean(matches) - (0.5 + equal / 2)) < 4 * 0.5 / len(matches) ** 0.5


def test_views_differ_in_crop_mask_and_text_and_share_the_image(split):
    image = masks.Random(ratio=0.5)
    loader = opened(split, views=3, text=("question",), image_mask=image, augment=RandomResizedCrop())
    batch = next(iter(loader))
    assert len(batch) == 15
    assert batch.key[::3] == batch.key[1::3] == batch.key[2::3]
    assert not batch.image[::3].equal(batch.image[1::3])
    assert not batch.image_mask.masked[::3].equal(batch.image_mask.masked[1::3])
    assert not batch.text.tokens[::3].equal(batch.text.tokens[1::3])


def test_a_split_shows_its_roles_by_default(split, tokenizer):
    batch = next(iter(opened(split, length=64)))
    assert {role for role, _ in texts(batch.text, 0, tokenizer)} == {
        *map(ROLES.index, ("caption", "phrase", "question"))
    }


def test_two_stages_write_a_rationale_and_read_it(split, said, tokenizer):
    stages = {"text": ("question",), "target_length": 24, "length": 40, **STRATEGIES["two-stage"]}
    loader = opened(split, **stages)
    shown = []
    for _ in range(6):
        for batch in loader:
            for i, key in enumerate(batch.key):
                row, target = texts(batch.text, i, tokenizer), texts(batch.target, i, tokenizer)
                questions = [plain(one, tokenizer) for one in said[key]["question"]]
                answers = [plain(one, tokenizer) for one in said[key]["answer"]]
                reason = (RATIONALE, plain(said[key]["rationale"], tokenizer))
                if len(row) == 1:
                    assert target == [reason]
                else:
                    assert row[1] == reason
                    assert target[0][1] == answers[questions.index(row[0][1])]
                shown.append(len(row))
    assert 0.3 < np.mean(np.array(shown) == 2) < 0.7
    first = texts(next(iter(opened(split, **stages))).text, 0, tokenizer)
    assert texts(next(iter(opened(split, **stages))).text, 0, tokenizer) == first


def test_strategies_say_what_is_written_and_in_which_order(split, said, tokenizer):
    for name, roles in {
        "answer": [ANSWER],
        "explanation": [ANSWER, RATIONALE],
        "reasoning": [RATIONALE, ANSWER],
    }.items():
        batch = next(iter(opened(split, text=("question",), target_length=24, **STRATEGIES[name])))
        assert [role for role, _ in texts(batch.target, 0, tokenizer)] == roles


def test_segments_that_contradict_the_image_make_a_bad_sample(tmp_path):
    def damaged(raw):
        samples = marked(raw)
        wrong = array_member(np.zeros((1, 80, 12), np.uint8))
        return [replace(one, members={**one.members, "segments.npy": wrong}) for one in samples]

    split = write_split("image-text", tmp_path, damaged)
    with pytest.raises(Exception, match=r"contains uint8 \(1, 80, 12\), not one bit per pixel of 100x80"):
        next(iter(opened(split, text=("phrase",), segments=True)))
    assert next(iter(opened(split, text=("phrase",)))).segment is None


def test_impossible_settings_are_refused(split):
    with pytest.raises(ValueError, match="text must be"):
        ImageTextData(text=("title",))
    with pytest.raises(ValueError, match="length must be an integer of at least 4, got 3"):
        ImageTextData(length=3)
    with pytest.raises(ValueError, match="needs words, but pictures with texts have only box, frames"):
        ImageTextData(image_mask=masks.WholeWords())
    with pytest.raises(ValueError, match="would hide padding"):
        ImageTextData(text_mask=masks.Random(ratio=0.5))
    with pytest.raises(
        ValueError, match=r"no sample .* such a text; it has caption, question, answer, rationale, phrase"
    ):
        opened(split, text=("passage",))
    with pytest.raises(ValueError, match=r"then=\('answer',\) is a second stage, which needs text and target"):
        ImageTextData(target=("rationale",), then=("answer",))
    with pytest.raises(ValueError, match="picture=1: no sample has it; the highest number is 0"):
        opened(split, picture=1)
    mask = masks.Padded(mask=masks.Box())
    loader = opened(split, text=("caption",), image_mask=mask)
    with pytest.raises(Exception, match="the row has no phrase with one"):
        next(iter(loader))


# The encoder


def drawn(folder, name, width=40, height=30):
    path = folder / name
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))
    return path


def encoder(*sources, **settings):
    return ImageTextEncoder(tokenizer="train:wordpiece:300", **settings).prepared({"train": sources})


def test_any_number_of_pictures_and_texts(tmp_path):
    paths = [drawn(tmp_path, name) for name in ("a.png", "b.jpg", "c.png")]
    passages = ["a lion is a cat", "a cat is an animal", "animals live"]
    source = Source(
        id="a", path=paths[0], parts=tuple(paths[1:]), meta={"passage": passages, "question": "what is a lion?"}
    )
    made = encoder(source).encode(source)
    assert [*made.members] == ["png", "1.jpg", "2.png", "texts.npy", "words.npy"]
    assert [made.members[name].data for name in ("png", "1.jpg", "2.png")] == [path.read_bytes() for path in paths]
    lists = made.members["texts.npy"].lists
    assert [ROLES[role] for role in lists["roles"]] == ["question", "passage", "passage", "passage"]
    tokens = read_npy(made.members["texts.npy"].data)
    assert len(tokens) == lists["lengths"].sum() == len(read_npy(made.members["words.npy"].data))


def test_boxes_are_shares_of_the_picture_also_if_it_is_shrunk(tmp_path):
    source = Source(
        id="a", path=drawn(tmp_path, "a.png"), meta={"phrase": ["x", "y"], "box": [[0, 0, 20, 30], [4, 3, 8, 6]]}
    )
    for side in (None, 10):
        made = encoder(source).encode(source) if side is None else None
        if made is None:
            made = encoder(source, image=replace(ImageTextEncoder().image, short_side=side)).encode(source)
            assert made.meta["height"] == side
        boxes = read_npy(made.members["boxes.npy"].data)
        np.testing.assert_allclose(boxes, [[0, 0, 0.5, 1], [0.1, 0.1, 0.3, 0.3]], atol=1e-6)


@pytest.mark.parametrize(
    ("meta", "why"),
    [
        ({}, "has no text"),
        ({"caption": 7}, "its caption is int, not text"),
        ({"caption": "  "}, "its caption has no tokens"),
        ({"caption": "\ud800"}, "its caption is not valid Unicode"),
        ({"phrase": "x", "box": []}, "0 boxes for 1 phrases"),
        ({"phrase": "x", "box": [[50, 0, 5, 5]]}, "outside the image of 40x30"),
        ({"phrase": "x", "box": [["a", 0, 5, 5]]}, "not x, y, width, height"),
        ({"phrase": "x", "box": [[0, 0, float("nan"), 5]]}, "outside the image"),
    ],
)
def test_what_cannot_be_used_is_rejected(tmp_path, meta, why):
    fine = Source(id="b", path=Path("b.png"), meta={"caption": "a b c d e f"})
    with pytest.raises(RejectError, match=why):
        encoder(fine).encode(Source(id="a", path=drawn(tmp_path, "a.png"), meta=meta))
