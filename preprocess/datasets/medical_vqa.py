"""Questions about medical images, in the layouts of their publishers and of M3AE's authors.

    vqa-rad    ROOT/trainset.json [valset.json] testset.json, ROOT/images/NAME
    slake      ROOT/train.json validate.json test.json, ROOT/imgs/xmlab0/source.jpg
    pathvqa    ROOT/qas/{train,val,test}/{train,val,test}_qa.json, ROOT/images/{train,val,test}/NAME.jpg

A list is a JSON array of objects with question, answer, and image_name, img_name or image. Other entries, such as
answer_type (OPEN or CLOSED), go into the sample's `json`. The label is the answer, if it is a class of train. For SLAKE
only questions in English are read (`q_lang` "en").
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskstream.preprocess.encode.image_text.encoder import ImageTextEncoder
from maskstream.preprocess.raw.lists import read_json
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .dataset import Dataset, dataset_of, number_answers, require_folder

OPENED = {"image_name", "img_name", "image", "question", "answer"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SetLayout:
    """The layout of a set.

    Attributes:
        name: Name of the dataset.
        lists: Path of each split's list below ROOT.
        needed: Splits that must exist.
        image: Entry with the file name of the image.
        images: Folder of the images, with {split}.
        suffix: Suffix to append to the file name.
        english: Whether to read only questions in English.
        remedy: Sentence that explains how to arrange the data.
    """

    name: str
    lists: Mapping[str, str]
    needed: tuple[str, ...]
    image: str
    images: str
    suffix: str = ""
    english: bool = False
    remedy: str

    def dataset(self, root: Path) -> Dataset:
        """Read the splits below a folder.

        Args:
            root: Folder of the raw data.

        Raises:
            DatasetError: The folder has another layout.
        """
        require_folder(root, name=self.name, obtain=self.remedy)
        there = {split: root / path for split, path in self.lists.items() if (root / path).is_file()}
        if missing := [split for split in self.needed if split not in there]:
            path = root / self.lists[missing[0]]
            pickled = path.with_suffix(".pkl")
            found = f"only {pickled.name}, a pickle, which can execute code. " if pickled.exists() else ""
            raise DatasetError(f"{self.name}: {path} does not exist; {found}{self.remedy}")
        listed = {split: list(self._sources(root, split, path)) for split, path in there.items()}
        label_names, labelled = number_answers(listed)
        return dataset_of(self.name, label_names, labelled, root=root, obtain=self.remedy, encoder=ImageTextEncoder())

    def _sources(self, root: Path, split: str, path: Path) -> Iterator[Source]:
        rows = read_json(path, self.remedy)
        if not isinstance(rows, list) or not rows:
            raise DatasetError(f"{self.name}: {path} is not a list of questions. {self.remedy}")
        for number, row in enumerate(rows):
            if not isinstance(row, dict) or (missing := {self.image, "question", "answer"} - row.keys()):
                what = (
                    f"has no {', '.join(sorted(missing))}"
                    if isinstance(row, dict)
                    else f"is not an object: {row!r:.80}"
                )
                raise DatasetError(f"{self.name}: {path}, entry {number} {what}. {self.remedy}")
            if self.english and row.get("q_lang", "en") != "en":
                continue
            others: dict[str, Any] = {key: value for key, value in row.items() if key not in OPENED}
            name = f"{row[self.image]}{self.suffix}"
            yield Source(
                id=f"{path.stem}/{row.get('qid', number)}",
                path=root / self.images.format(split=split) / name,
                meta={**others, "question": str(row["question"]), "answer": str(row["answer"]), "image": name},
            )


VQA_RAD = SetLayout(
    name="vqa-rad",
    lists={"train": "trainset.json", "val": "valset.json", "test": "testset.json"},
    needed=("train", "test"),
    image="image_name",
    images="images",
    remedy="Arrange VQA-RAD as ROOT/trainset.json, ROOT/testset.json and ROOT/images/NAME, as M3AE's authors do",
)
SLAKE = SetLayout(
    name="slake",
    lists={"train": "train.json", "val": "validate.json", "test": "test.json"},
    needed=("train", "val", "test"),
    image="img_name",
    images="imgs",
    english=True,
    remedy="Unpack SLAKE as ROOT/train.json, validate.json and test.json with ROOT/imgs/xmlab0/source.jpg",
)
PATHVQA = SetLayout(
    name="pathvqa",
    lists={split: f"qas/{split}/{split}_qa.json" for split in ("train", "val", "test")},
    needed=("train", "val", "test"),
    image="image",
    images="images/{split}",
    suffix=".jpg",
    remedy="PathVQA's lists are pickles; convert each to JSON if you trust it: python -c \"import json, pickle; "
    "json.dump(pickle.load(open('train_qa.pkl', 'rb')), open('train_qa.json', 'w'))\", and arrange them as "
    "ROOT/qas/train/train_qa.json with ROOT/images/train/NAME.jpg",
)


def vqa_rad(root: Path) -> Dataset:
    """Read VQA-RAD (Lau et al., 2018): questions of clinicians about radiological images."""
    return VQA_RAD.dataset(root)


def slake(root: Path) -> Dataset:
    """Read SLAKE (Liu et al., 2021): its questions in English."""
    return SLAKE.dataset(root)


def pathvqa(root: Path) -> Dataset:
    """Read PathVQA (He et al., 2020): questions about pathology images, from lists converted to JSON."""
    return PATHVQA.dataset(root)
