"""OK-VQA, A-OKVQA and InfoSeek as their publishers write them; other layouts are refused by name."""

import pytest

from maskstream.preprocess import DATASETS
from maskstream.shards.errors import DatasetError

from ..raw_files import put_all


def ok_questions(*numbers):
    return {
        "license": {"name": "CC BY 4.0"},
        "data_subtype": "val2014",
        "task_type": "Open-Ended",
        "questions": [
            {"image_id": 297147, "question": "What sport can you use this for?", "question_id": n} for n in numbers
        ],
    }


def ok_annotation(number, answers):
    given = [
        {"answer": one, "raw_answer": one, "answer_confidence": "yes", "answer_id": i + 1}
        for i, one in enumerate(answers)
    ]
    return {
        "image_id": 297147,
        "question_id": number,
        "question_type": "four",
        "answer_type": "other",
        "confidence": 3,
        "answers": given,
    }


TEN = ["race"] * 4 + ["motocross"] * 2 + ["ride"] * 4
OK = {
    "OpenEnded_mscoco_val2014_questions.json": ok_questions(2971475),
    "mscoco_val2014_annotations.json": {"annotations": [ok_annotation(2971475, TEN)]},
    "val2014/COCO_val2014_000000297147.jpg": "",
}
A_OK_ROW = {
    "split": "val",
    "image_id": 461751,
    "question_id": "22jbM6gDxdaMaunuzgrsBB",
    "question": "What is in the motorcyclist's mouth?",
    "choices": ["toothpick", "food", "popsicle stick", "cigarette"],
    "correct_choice_idx": 3,
    "direct_answers": ["cigarette"] * 10,
    "difficult_direct_answer": False,
    "rationales": ["He's smoking while riding.", "There is smoke.", "It is thin and white."],
}
A_OK = {"aokvqa_v1p0_val.json": [A_OK_ROW], "val2017/000000461751.jpg": ""}
SEEK_ROW = {
    "data_id": "infoseek_val_00032004",
    "image_id": "oven_05018274",
    "question": "What country does this building belong to?",
    "answer": ["Bulgaria"],
    "answer_eval": ["BGR", "Bulgaria", "bg"],
    "data_split": "val_unseen_question",
}
SEEK = {"infoseek_val.jsonl": [SEEK_ROW], "images/oven_05018274.jpg": ""}


@pytest.mark.parametrize(
    ("name", "files", "meta"),
    [
        ("ok-vqa", OK, {"answers": TEN, "answer": "race", "kind": "four", "question_id": "2971475"}),
        (
            "a-okvqa",
            A_OK,
            {
                "answers": ["cigarette"] * 10,
                "choice": A_OK_ROW["choices"],
                "right_choice": "cigarette",
                "rationale": A_OK_ROW["rationales"],
            },
        ),
        ("infoseek", SEEK, {"answers": ["Bulgaria", "BGR", "bg"], "answer": "Bulgaria"}),
    ],
)
def test_a_set_as_its_publisher_writes_it(name, files, meta, tmp_path):
    put_all(tmp_path, files)
    dataset = DATASETS[name](tmp_path)
    (source,) = dataset.splits["val"]
    assert source.path == tmp_path / list(files)[-1]
    assert {key: source.meta[key] for key in meta} == meta
    assert "question" in source.meta


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("ok-vqa", {"a": ""}, "OpenEnded_mscoco_val2014_questions.json does not exist"),
        ("ok-vqa", {**OK, "OpenEnded_mscoco_val2014_questions.json": [1]}, "must be JSON objects with questions"),
        ("ok-vqa", {**OK, "OpenEnded_mscoco_val2014_questions.json": ok_questions(7)}, "no annotation for question 7"),
        ("ok-vqa", {k: v for k, v in OK.items() if "annot" not in k}, "mscoco_val2014_annotations.json does not exist"),
        (
            "ok-vqa",
            {**OK, "mscoco_val2014_annotations.json": {"annotations": [{"question_id": 2971475}]}},
            "entry 0 has no answers",
        ),
        ("a-okvqa", {"aokvqa_v1p0_val.json": [{**A_OK_ROW, "correct_choice_idx": 4}]}, "correct_choice_idx 4, but 4"),
        ("a-okvqa", {"aokvqa_v1p0_val.json": [{**A_OK_ROW, "direct_answers": "x"}]}, "not a list of texts"),
        ("a-okvqa", {"aokvqa_v1p0_val.json": ["x"]}, "not an object, but 'x'"),
        ("infoseek", {"infoseek_val.jsonl": "{"}, "not valid JSON Lines"),
        ("infoseek", {"infoseek_val.jsonl": [{"data_id": "1"}]}, "has no answer, image_id, question"),
    ],
)
def test_other_layouts_are_refused_by_name(name, files, message, tmp_path):
    put_all(tmp_path, files)
    with pytest.raises(DatasetError, match=f"{name}: .*{message}") as refused:
        DATASETS[name](tmp_path)
    assert "ROOT/" in str(refused.value)
