import json
import sys
from collections import Counter
from dataclasses import replace
from itertools import combinations

import cv2
import numpy as np
import pytest

from maskstream.cli import main
from maskstream.pages.kbvqa import write_kbvqa_page
from maskstream.preprocess import make_shards
from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.encode.image_text.encoder import ImageTextEncoder
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError, SampleError, ShardError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.members.text import json_member
from maskstream.train.evaluate.evaluation import normalise, rouge_l, score_exact_match, score_vqa
from maskstream.train.papers.kbvqa.evaluate import (
    GREY,
    SIDE,
    Question,
    compose,
    hide_patches,
    kbvqa,
    read_questions,
    write_prompt,
)
from maskstream.train.papers.kbvqa.glosses import Glosses
from maskstream.train.papers.kbvqa.options import KbvqaSettings
from maskstream.train.papers.kbvqa.predictors import CommandPredictor, PredictorError, frequent, load_run, wrap_callable
from maskstream.train.recipes import train

from ...pipelines.every_modality import write_split
from ...pipelines.small_texts import image_text_samples


def question(n, kind="colour", **more):
    rng = np.random.default_rng(n)
    image = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return Question(key=f"q{n}", image=image, text="what is it?", answers=("red", "blue")[n % 2 :], kind=kind, **more)


def test_vqa_accuracy_is_the_mean_over_subsets_of_nine():
    answers = ["red"] * 2 + ["blue"] * 4 + ["a sky"] * 3 + ["1"]
    for said in ("red", "blue", "The sky.", "one", "green"):
        subsets = [Counter(map(normalise, nine)) for nine in combinations(answers, 9)]
        expected = np.mean([min(1, nine[normalise(said)] / 3) for nine in subsets])
        assert score_vqa(said, answers) == pytest.approx(expected)
    assert score_exact_match("An apple!", ["apple"]) == 1
    assert score_exact_match("apples", ["apple"]) == 0


def test_rouge_is_that_of_the_longest_common_subsequence():
    assert rouge_l("the police killed the gunman", ["police ended the gunman"]) == pytest.approx(2 * 2 / 6)
    assert rouge_l("x y", ["y x", "x z y"]) == pytest.approx(2 * 2 / 5)
    assert rouge_l("", []) == 0


def test_retrieval_prefers_rare_words():
    index = Glosses.of(["lion: a large cat of africa", "cat: a small animal", "dog: a small animal that barks"])
    assert index.found("which animal barks", 1) == ["dog: a small animal that barks"]
    assert index.found("africa", 5) == ["lion: a large cat of africa"]
    assert index.found("zebra", 3) == []
    with pytest.raises(ValueError, match="got none"):
        Glosses.of([])


def test_glosses_are_read_in_wordnets_own_format(tmp_path):
    nouns = """  1 This is a licence line.
00000010 03 n 01 animal 0 000 | a living thing; "it moves"
00000030 05 n 02 big_cat 0 cat 0 002 @ 00000010 n 0000 %p 00000040 n 0000 | a large one
"""
    (tmp_path / "data.noun").write_text(nouns)
    assert Glosses.read(tmp_path).entries == ["animal: a living thing", "big cat: a large one"]
    (tmp_path / "data.noun").write_text("something else")
    with pytest.raises(DatasetError, match=r"has no data\.noun of WordNet"):
        Glosses.read(tmp_path)


def test_patches_are_hidden_by_the_key_and_more_of_them_at_higher_ratios():
    image = np.zeros((64, 64, 3), np.uint8)
    shares = {ratio: (hide_patches(image, ratio, "k") == GREY) for ratio in (0.25, 0.5, 1.0)}
    assert [shares[ratio].mean() for ratio in shares] == [0.25, 0.5, 1.0]
    assert (shares[0.25] <= shares[0.5]).all()
    assert not np.array_equal(hide_patches(image, 0.5, "k"), hide_patches(image, 0.5, "other"))
    assert hide_patches(image, 0.0, "k") is image


def test_examples_stand_in_the_picture_and_in_the_prompt():
    examples = [question(1), question(2, rationales=("because",))]
    prompt = write_prompt(question(3), "rationale", examples=examples, glosses=["red: a colour"])
    assert prompt.image.shape == (2 * SIDE, 2 * SIDE, 3)
    assert "Picture 2. Question: what is it? Answer: red Rationale: because" in prompt.text
    assert "about picture 3" in prompt.text
    assert "Known: red: a colour" in prompt.text
    whole = compose([np.zeros((10, 20, 3), np.uint8)])
    assert (whole[: SIDE // 2] == 0).all()
    assert (whole[SIDE // 2 :] == 255).all()


def test_the_scores_of_each_perspective_and_kind():
    questions = [question(n, kind=("colour", "other")[n % 2], rationales=("it is red",)) for n in range(6)]
    known = [question(n) for n in (0, 2, 4)]
    seen = []

    def reply(prompt, image):
        seen.append(prompt)
        return "Answer: Red.\nRationale: it is red" if "Rationale:" in prompt else "blue"

    settings = KbvqaSettings(shots=2, glosses=Glosses.of(["blue: sad"]), passages=1, hidden=[0.5])
    result, replies = kbvqa(questions, known, wrap_callable(reply), settings)
    assert result.scores["commonsense"] == {"all": {"exact": 1}, "colour": {"exact": 1}, "other": {"exact": 1}}
    assert result.scores["rationale"]["all"] == {"exact": 0.5, "rouge_l": 1, "names_answer": 1}
    assert result.frequent == {"all": 0.5, "colour": 1, "other": 0}
    assert result.occluded == {0.5: 1}
    assert len(replies) == 18
    assert sum("Known: blue: sad" in prompt for prompt in seen) == 12
    again, _ = kbvqa(questions, known, wrap_callable(reply), settings)
    assert again == result
    ten = Question(key="t", image=questions[0].image, text="?", answers=("red",) * 2 + ("blue",) * 8)
    assert kbvqa([ten], known, lambda prompts: ["red"] * len(prompts), KbvqaSettings())[0].scores["knowledge"][
        "all"
    ] == {
        "exact": 1,
        "vqa": pytest.approx(score_vqa("red", ten.answers)),
    }
    with pytest.raises(ValueError, match="unknown perspective 'luck'"):
        KbvqaSettings(perspectives=["luck"])
    with pytest.raises(ValueError, match="returned 0 replies"):
        kbvqa(questions, known, lambda prompts: [], KbvqaSettings())


REPLIES = """
import json, sys, os
for line in sys.stdin:
    asked = json.loads(line)
    size = os.path.getsize(asked["image"])
    {body}
    sys.stdout.flush()
"""


def command(body, **more):
    return CommandPredictor(command=(sys.executable, "-c", REPLIES.format(body=body)), **more)


def test_a_command_replies_line_by_line_within_its_time():
    prompts = [write_prompt(question(n), "commonsense") for n in range(3)]
    good = 'print(json.dumps({"id": asked["id"], "answer": asked["question"] + str(size > 100)}))'
    assert command(good)(prompts) == ["what is it?True"] * 3
    for body, message in (
        ("import time; time.sleep(60)", "did not reply to 'q0 commonsense 0' within 0.5 s"),
        ("print('red')", "a reply must be a line"),
        ('print(json.dumps({"id": "x", "answer": "red"}))', "but the request was 'q0 commonsense 0'"),
        ("sys.exit(3)", "ended before it replied"),
    ):
        limit = 0.5 if "sleep" in body else 20
        with pytest.raises(PredictorError, match=message):
            command(body, timeout_s=limit)(prompts)
    with pytest.raises(PredictorError, match="cannot be started"):
        CommandPredictor(command=("/nowhere/program",))(prompts)
    with pytest.raises(PredictorError, match="a reply must be a text"):
        wrap_callable(lambda prompt, image: 3)(prompts)


def test_the_trivial_predictor_knows_words_and_no_pictures():
    known = [question(0), question(2), question(1)]
    other = Question(key="o", image=known[0].image, text="and this?", answers=("green",))
    replies = frequent([*known, other, other])([write_prompt(one, "commonsense") for one in (known[0], other)])
    assert replies == ["red", "green"]


def asking(raw):
    """The samples of images with texts, each with a question in its json."""
    told = [{"question": f"is it {i}?", "answer": "ab"[i % 2], "kind": "letter"} for i in range(15)]
    samples = zip(image_text_samples(raw), told, strict=True)
    return [replace(one, members={**one.members, "json": json_member(said)}) for one, said in samples]


def test_a_split_is_read_and_a_run_answers_its_questions(tmp_path):
    split = write_split("image-text", tmp_path / "data", asking)
    questions = read_questions(Manifest.load(split), 5)
    assert len(questions) == 5
    assert all(one.text and one.answers and one.image.ndim == 3 for one in questions)
    sizes = ("data.size=32", "data.patch=8", "batch_size=2", "model.width=32", "model.depth=1", "model.heads=2")
    cuts = (*sizes, "model.text_depth=1", "model.fusion_depth=1", "model.answers=2")
    train("vqa-tiny", split, tmp_path / "run", set=cuts, steps=1, device="cpu", progress=False)
    result, replies = kbvqa(
        questions,
        questions,
        load_run(tmp_path / "run", Manifest.load(split)),
        KbvqaSettings(),
        name="a run",
        data=split,
    )
    assert {one.answer for one in replies} <= {"a", "b"}
    page = write_kbvqa_page(result, replies, tmp_path / "page.html").read_text()
    assert "its scores do not represent a large model" in page
    assert json.dumps(result.to_dict())
    with pytest.raises(SampleError, match="has no question with an answer"):
        read_questions(Manifest.load(write_split("image-text", tmp_path / "other")), 15)
    with pytest.raises(ShardError, match="questions need images with texts"):
        read_questions(Manifest.load(write_split("text", tmp_path / "text")), 5)


COLOURS = {"red": (40, 40, 220), "blue": (220, 90, 30)}


def coloured(folder, count):
    """Pictures of a red or a blue square somewhere on grey, and a question that only the picture answers."""
    folder.mkdir(parents=True)
    rng, sources = np.random.default_rng(count), []
    for n in range(count):
        label, (x, y) = n % 2, rng.integers(2, 16, 2)
        picture = rng.integers(90, 160, (32, 32, 3), dtype=np.uint8)
        picture[y : y + 14, x : x + 14] = COLOURS[("red", "blue")[label]]
        cv2.imwrite(str(path := folder / f"{n}.png"), picture)
        told = {"question": "which colour is the square?", "answer": ("red", "blue")[label], "kind": "colour"}
        sources.append(Source(id=f"{folder.name}/{n}", path=path, label=label, meta=told))
    return sources


@pytest.mark.slow
def test_a_trained_run_answers_by_the_picture_and_not_where_it_is_hidden(tmp_path, monkeypatch, capsys):
    """The command, of a run of vqa-tiny: right where the trivial predictor guesses, and a guess without a picture."""
    splits = {"train": coloured(tmp_path / "raw/train", 128), "val": coloured(tmp_path / "raw/val", 60)}
    encoder = ImageTextEncoder(tokenizer="train:wordpiece:300")
    dataset = Dataset(name="squares", label_names=("red", "blue"), splits=splits, encoder=encoder)
    make_shards(lambda _: dataset, tmp_path / "raw", tmp_path / "data", workers=0)
    sizes = ("data.size=32", "data.patch=8", "batch_size=16", "model.width=32", "model.depth=1", "model.heads=2")
    cuts = (*sizes, "model.text_depth=1", "model.fusion_depth=1", "model.answers=2", "model.vocabulary=300")
    train("vqa-tiny", tmp_path / "data/train", tmp_path / "run", set=cuts, steps=120, device="cpu", progress=False)
    asked = [
        "paper",
        "kbvqa",
        tmp_path / "data/val",
        "--known",
        tmp_path / "data/train",
        "--predictor",
        tmp_path / "run",
    ]
    monkeypatch.setattr(
        "sys.argv", ["maskstream", *map(str, asked), "--hidden", "0.99", "--out", str(tmp_path / "out")]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    result = json.loads((tmp_path / "out/kbvqa.json").read_text())
    for perspective in ("commonsense", "knowledge", "rationale"):
        assert result["scores"][perspective]["all"]["exact"] > 0.9
    assert result["frequent"]["all"] == 0.5
    (hidden,) = result["occluded"]
    assert 0.3 < hidden["exact"] < 0.7
    assert "most frequent answer 0.500" in capsys.readouterr().out
