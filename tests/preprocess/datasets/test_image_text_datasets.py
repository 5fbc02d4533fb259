"""Sets of images with texts: publishers' layouts of small files, others refused by name, and questions from WordNet."""

from collections import Counter

import cv2
import numpy as np
import pytest

from maskstream.preprocess import DATASETS
from maskstream.preprocess.encode.encoder import prepared
from maskstream.shards.media.npy import read_npy

from ..raw_files import put, put_all, refused


def picture(path):
    put(path, bytes(cv2.imencode(path.suffix, np.zeros((8, 8, 3), np.uint8))[1]))


def rad(number, answer="yes", split="train"):
    return {
        "qid": number,
        "image_name": f"synpic{number}.jpg",
        "image_organ": "HEAD",
        "question": "Is there a mass?",
        "answer": answer,
        "answer_type": "CLOSED" if answer in ("yes", "no") else "OPEN",
        "phrase_type": "freeform",
        "image_case_url": "https://medpix.example/1",
        "split": split,
    }


def test_vqa_rad_as_its_publisher_writes_it(tmp_path):
    put(tmp_path / "trainset.json", [rad(1), rad(2, "No"), rad(3, "left lung")])
    put(tmp_path / "testset.json", [rad(4, "LEFT LUNG"), rad(5, "never seen")])
    for number in (1, 2, 3, 4, 5):
        picture(tmp_path / f"images/synpic{number}.jpg")
    dataset = DATASETS["vqa-rad"](tmp_path)
    assert dataset.modality == "image-text"
    assert dataset.label_names == ("left lung", "no", "yes")
    assert {split: [source.label for source in of] for split, of in dataset.splits.items()} == {
        "train": [2, 1, 0],
        "test": [0, -1],
    }
    first = dataset.splits["train"][0]
    assert first.path == tmp_path / "images/synpic1.jpg"
    assert (first.meta["question"], first.meta["answer"], first.meta["answer_type"]) == (
        "Is there a mass?",
        "yes",
        "CLOSED",
    )


def slake_row(number, language="en"):
    return {
        "img_id": number,
        "img_name": f"xmlab{number}/source.jpg",
        "question": "What modality is used?",
        "answer": "MRI",
        "q_lang": language,
        "location": "Abdomen",
        "modality": "MRI",
        "answer_type": "OPEN",
        "base_type": "vqa",
        "content_type": "Modality",
        "triple": ["vhead", "_", "_"],
        "qid": number,
    }


def test_slake_in_english_and_a_missing_picture(tmp_path):
    for name in ("train", "validate", "test"):
        put(tmp_path / f"{name}.json", [slake_row(1), slake_row(2, "zh"), slake_row(3)])
    picture(tmp_path / "imgs/xmlab1/source.jpg")
    dataset = DATASETS["slake"](tmp_path)
    assert {split: len(of) for split, of in dataset.splits.items()} == {"train": 1, "val": 1, "test": 1}
    assert [reject.source for reject in dataset.missing["val"]] == ["validate/3"]
    assert dataset.splits["train"][0].meta["content_type"] == "Modality"


def test_pathvqa_of_json_and_its_pickles_refused_with_the_remedy(tmp_path):
    for split in ("train", "val", "test"):
        put(tmp_path / f"qas/{split}/{split}_qa.pkl", "no pickle is opened")
    message = refused("pathvqa", tmp_path)
    assert "only train_qa.pkl, a pickle" in message
    assert "json.dump(pickle.load(" in message
    for split in ("train", "val", "test"):
        row = {
            "image": f"{split}_0422",
            "question": "Where are liver stem cells located?",
            "answer": "canals of hering",
        }
        put(tmp_path / f"qas/{split}/{split}_qa.json", [row])
        picture(tmp_path / f"images/{split}/{split}_0422.jpg")
    dataset = DATASETS["pathvqa"](tmp_path)
    assert dataset.label_names == ("canals of hering",)
    assert dataset.splits["val"][0].path == tmp_path / "images/val/val_0422.jpg"


@pytest.mark.parametrize(
    ("name", "files", "why"),
    [
        ("vqa-rad", {"trainset.json": [rad(1)]}, "does not exist"),
        ("vqa-rad", {"trainset.json": {"a": 1}, "testset.json": [rad(1)]}, "is not a list of questions"),
        (
            "vqa-rad",
            {"trainset.json": [{"question": "x"}], "testset.json": [rad(1)]},
            "entry 0 has no answer, image_name",
        ),
        ("vqa-rad", {"trainset.json": ["x"], "testset.json": [rad(1)]}, "not an object: 'x'"),
        ("vqa-rad", {"trainset.json": "{", "testset.json": [rad(1)]}, "is not valid JSON"),
        ("slake", {"train.json": [rad(1)], "validate.json": [rad(1)], "test.json": [rad(1)]}, "has no img_name"),
        ("m3ae-style", {"roco/train/radiology/captions.txt": "ROCO_1 a caption without a tab"}, "line 1 has no tab"),
        ("m3ae-style", {"captions.txt": "x"}, "neither ROCO's captions nor MedICaT's list"),
    ],
)
def test_another_layout_is_refused_by_name(tmp_path, name, files, why):
    put_all(tmp_path, files)
    message = refused(name, tmp_path)
    assert why in message
    assert str(tmp_path) in message
    assert "ROOT/" in message


def reasoned(answer=1, **changes):
    said = {"choices": ["no", "yes"], "solution": "The lung is dark.\n So it is air.", "image": "synpic1.jpg"}
    return {"question": "Is it air?", "answer": answer, "question_type": "PRES", **said, **changes}


def test_rationales_as_medthink_has_them(tmp_path):
    open_row = reasoned(0, choices=["left lung"], image=None, img_id=7)
    for split in ("train", "test"):
        put(tmp_path / f"rad/closed-end/{split}set.json", {"0": reasoned(), "4": reasoned(0)})
        put(tmp_path / f"slake/closed_end/{split}.json", [reasoned(img_name="xmlab7/source.jpg", image=None)])
        put(tmp_path / f"slake/open_end/{split}.json", {"2": open_row})
    picture(tmp_path / "rad/images/synpic1.jpg")
    picture(tmp_path / "slake/imgs/xmlab7/source.jpg")
    rad, slake = DATASETS["r-rad"](tmp_path / "rad"), DATASETS["r-slake"](tmp_path / "slake")
    assert rad.label_names == ("no", "yes")
    assert [(one.id, one.label) for one in rad.splits["test"]] == [("closed/testset/0", 1), ("closed/testset/4", 0)]
    assert rad.splits["train"][0].meta == {
        "question": "Is it air?",
        "answer": "yes",
        "choice": ["no", "yes"],
        "rationale": "The lung is dark. So it is air.",
        "kind": "closed",
        "image": "synpic1.jpg",
        "question_type": "PRES",
    }
    assert [(one.meta["kind"], one.meta["answer"]) for one in slake.splits["train"]] == [
        ("closed", "yes"),
        ("open", "left lung"),
    ]
    assert {one.path for one in slake.splits["test"]} == {tmp_path / "slake/imgs/xmlab7/source.jpg"}


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ({"0": reasoned(2)}, "the answer 2 of 2 choices"),
        ({"0": reasoned(True)}, "the answer True of 2 choices"),
        ({"9": reasoned(choices="no")}, "entry 9 is not a valid closed question"),
        ([reasoned(solution=" ")], "solution ' '"),
        ([{"question": "x"}], "KeyError"),
        ([reasoned(image=None)], "img_id"),
        ("{", "is not valid JSON"),
        ({}, "must contain questions"),
    ],
)
def test_other_rationales_are_refused_by_name(tmp_path, rows, why):
    for split in ("train", "test"):
        put(tmp_path / f"closed-end/{split}set.json", rows)
    message = refused("r-path", tmp_path)
    assert why in message
    assert str(tmp_path / "closed-end/trainset.json") in message
    assert "ROOT/closed-end/trainset.json" in message


MEDICAT = "medicat/release/s2_full_figures_oa_nonroco_combined_medical_top4_public.jsonl"


def test_roco_and_medicat_as_m3ae_has_them(tmp_path):
    for split in ("train", "val", "test"):
        folder = tmp_path / f"roco/{split}/radiology"
        lines = ["ROCO_00001\t Axial  CT of the\u00a0chest. ", "ROCO_00002\ttoo short"]
        put(folder / "captions.txt", "\n".join(lines) + "\n")
        picture(folder / "images/ROCO_00001.jpg")
        picture(folder / "images/ROCO_00002.jpg")
    figures = [
        {
            "pdf_hash": f"{n:040x}",
            "fig_uri": "4-Figure3-1.png",
            "s2_caption": "Figure 3: chest X-ray of a patient",
            "s2orc_references": ["see Fig. 3", "as Figure 3 shows, both lungs are clear"] if n % 2 else None,
            "radiology": n != 5,
        }
        for n in range(60)
    ]
    put(tmp_path / MEDICAT, figures)
    for n in range(60):
        picture(tmp_path / f"medicat/release/figures/{n:040x}_4-Figure3-1.png")
    dataset = DATASETS["m3ae-style"](tmp_path)
    sources = [source for of in dataset.splits.values() for source in of]
    by_id = {source.id: source for source in sources}
    assert by_id["roco/val/ROCO_00001"].meta == {"caption": ["Axial CT of the chest."]}
    assert not any("ROCO_00002" in name for name in by_id)
    medicat = [source for source in sources if source.id.startswith("medicat/")]
    assert len(medicat) == 59
    assert Counter(len(source.meta["caption"]) for source in medicat) == {1: 30, 3: 29}
    one = next(source for source in medicat if f"{1:040x}" in source.id)
    assert one.meta["caption"] == [
        "Figure 3: chest X-ray of a patient",
        "see Fig. 3",
        "as Figure 3 shows, both lungs are clear",
    ]


def ref(number, split, sentences, ann=7):
    said = [{"tokens": one.split(), "raw": one, "sent_id": i, "sent": one} for i, one in enumerate(sentences)]
    return {
        "sent_ids": [*range(len(said))],
        "file_name": "COCO_train2014_000000000009_7.jpg",
        "ann_id": ann,
        "ref_id": number,
        "image_id": 9,
        "split": split,
        "sentences": said,
        "category_id": 18,
    }


SHAPE = [[1.5, 2, 5.5, 2, 5.5, 5.5, 1.5, 5.5]]
INSTANCES = {
    "images": [{"id": 9, "file_name": "COCO_train2014_000000000009.jpg", "height": 8, "width": 8}],
    "annotations": [{"id": 7, "image_id": 9, "category_id": 18, "bbox": [1.5, 2, 4, 3.5], "segmentation": SHAPE}],
    "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
}


def test_refcoco_of_json_and_its_pickle_refused_with_the_remedy(tmp_path):
    put(tmp_path / "refs(unc).p", "no pickle is opened")
    put(tmp_path / "instances.json", INSTANCES)
    message = refused("refcoco", tmp_path)
    assert "only refs(unc).p, a pickle" in message
    assert "json.dump(pickle.load(" in message
    put(tmp_path / "refs.json", [ref(1, "train", ["left dog", "dog"]), ref(2, "testA", ["the dog"])])
    picture(tmp_path / "images/mscoco/images/train2014/COCO_train2014_000000000009.jpg")
    dataset = DATASETS["refcoco"](tmp_path)
    assert {split: len(of) for split, of in dataset.splits.items()} == {"train": 1, "testA": 1}
    (first,) = dataset.splits["train"]
    assert first.meta["phrase"] == ["left dog", "dog"]
    assert (first.meta["box"], first.meta["segment"]) == ([[1.5, 2, 4, 3.5]] * 2, [SHAPE] * 2)
    assert dataset.label_names[first.label] == "dog"
    encoder = prepared(dataset.encoder, dataset.splits)
    members = encoder.encode(first).members
    segments = np.unpackbits(read_npy(members["segments.npy"].data), axis=-1).astype(bool)
    assert [np.argwhere(one).tolist() for one in segments] == [[[y, x] for y in range(2, 6) for x in range(2, 6)]] * 2
    boxes = read_npy(members["boxes.npy"].data)
    assert boxes.tolist() == [[0.1875, 0.25, 0.6875, 0.6875]] * 2
    put(tmp_path / "refs.json", [ref(1, "train", ["dog"], ann=8)])
    assert "entry 0 is not a ref" in refused("refcoco", tmp_path)
