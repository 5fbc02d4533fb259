"""Questions about images that need knowledge, in the layouts of their publishers.

    ok-vqa     ROOT/OpenEnded_mscoco_{train,val}2014_questions.json, ROOT/mscoco_{train,val}2014_annotations.json,
               ROOT/{train,val}2014/COCO_{train,val}2014_000000297147.jpg
    a-okvqa    ROOT/aokvqa_v1p0_{train,val}.json, ROOT/{train,val}2017/000000461751.jpg
    infoseek   ROOT/infoseek_{train,val}.jsonl, ROOT/images/oven_05018274.jpg

Entries of a sample's `json`: all `answers` (ten for OK-VQA and A-OKVQA, with aliases for InfoSeek), `choice` and
`rationale` of A-OKVQA, `kind`, and `question_id`. The text `answer` is the most frequent one, and the label is that
answer if it is one of the classes of train. The splits train and val are read if they exist; the hidden answers of
A-OKVQA's test are not needed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskstream.preprocess.encode.image_text.encoder import ImageTextEncoder
from maskstream.preprocess.raw.lists import read_json
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .dataset import Dataset, dataset_of, number_answers, require_folder

Rows = Iterator[tuple[str, str, Mapping[str, Any]]]
"""Number, image path below ROOT, and texts of each question."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KnowledgeLayout:
    """The layout of a set.

    Attributes:
        name: Name of the dataset.
        lists: File name of a split's list, with {split}.
        rows: Function that reads the questions of a list.
        remedy: Sentence that explains how to arrange the data.
    """

    name: str
    lists: str
    rows: Callable[[KnowledgeLayout, Path, str], Rows]
    remedy: str

    def dataset(self, root: Path) -> Dataset:
        """Read the splits below a folder.

        Args:
            root: Folder of the raw data.

        Raises:
            DatasetError: The folder has another layout.
        """
        require_folder(root, name=self.name, obtain=self.remedy)
        there = [split for split in ("train", "val") if (root / self.lists.format(split=split)).is_file()]
        if not there:
            path = root / self.lists.format(split="val")
            raise DatasetError(f"{self.name}: {path} does not exist. {self.remedy}")
        listed: dict[str, list[Source]] = {split: [] for split in there}
        for split, sources in listed.items():
            for number, image, asked in self.rows(self, root, split):
                answers = [str(answer) for answer in asked["answers"]]
                most = Counter(answers).most_common(1)[0][0]
                meta = {**asked, "answers": answers, "answer": most, "question_id": number, "image": image}
                sources.append(Source(id=f"{split}/{number}", path=root / image, meta=meta))
        label_names, labelled = number_answers(listed)
        return dataset_of(self.name, label_names, labelled, root=root, obtain=self.remedy, encoder=ImageTextEncoder())

    def read(self, path: Path) -> Any:
        """Read a JSON or JSON Lines file. Raise DatasetError if it is missing or not valid JSON."""
        if not path.is_file():
            raise DatasetError(f"{self.name}: {path} does not exist. {self.remedy}")
        if path.suffix != ".jsonl":
            return read_json(path, self.remedy)
        try:
            return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
        except (OSError, ValueError, RecursionError) as error:
            raise DatasetError(f"{self.name}: {path} is not valid JSON Lines ({error}). {self.remedy}") from error

    def checked(self, rows: Any, path: Path, needed: Sequence[str]) -> list[Mapping[str, Any]]:
        """Return the rows of a list.

        Args:
            rows: Parsed JSON, which must be a list of objects.
            path: File, for messages.
            needed: Entries that each row must have.

        Raises:
            DatasetError: This is not such a list.
        """
        if not isinstance(rows, list) or not rows:
            raise DatasetError(f"{self.name}: {path} is not a list of questions. {self.remedy}")
        for number, row in enumerate(rows):
            missing = sorted({*needed} - row.keys()) if isinstance(row, dict) else None
            if missing is None or missing:
                what = f"is not an object, but {row!r:.80}" if missing is None else f"has no {', '.join(missing)}"
                raise DatasetError(f"{self.name}: {path}, entry {number} {what}. {self.remedy}")
        return rows

    def answers(self, given: Any, path: Path, number: object) -> list[str]:
        """Return a list of answers.

        Args:
            given: Parsed JSON, which must be a non-empty list of texts.
            path: File, for messages.
            number: Number of the question, for messages.

        Raises:
            DatasetError: This is not such a list.
        """
        if not isinstance(given, list) or not given or not all(isinstance(one, str) for one in given):
            raise DatasetError(
                f"{self.name}: {path}, the answers of question {number} are not a list of texts: {given!r:.80}. "
                f"{self.remedy}"
            )
        return given


def _read_ok_vqa(of: KnowledgeLayout, root: Path, split: str) -> Rows:
    path, said = root / of.lists.format(split=split), root / f"mscoco_{split}2014_annotations.json"
    asked, told = of.read(path), of.read(said)
    if not isinstance(asked, dict) or not isinstance(told, dict):
        raise DatasetError(
            f"{of.name}: {path} and {said.name} must be JSON objects with questions and annotations. {of.remedy}"
        )
    rows = of.checked(asked.get("questions"), path, ("question_id", "image_id", "question"))
    notes = {n["question_id"]: n for n in of.checked(told.get("annotations"), said, ("question_id", "answers"))}
    for row in rows:
        number = row["question_id"]
        if number not in notes:
            raise DatasetError(f"{of.name}: {said} has no annotation for question {number}. {of.remedy}")
        note = notes[number]
        given = of.checked(note["answers"], said, ("answer",))
        image = f"{split}2014/COCO_{split}2014_{int(row['image_id']):012d}.jpg"
        answers = of.answers([one["answer"] for one in given], said, number)
        kind = str(note.get("question_type", ""))
        yield str(number), image, {"question": str(row["question"]), "answers": answers, "kind": kind}


def _read_a_okvqa(of: KnowledgeLayout, root: Path, split: str) -> Rows:
    path = root / of.lists.format(split=split)
    needed = ("question_id", "image_id", "question", "choices", "correct_choice_idx", "direct_answers", "rationales")
    for row in of.checked(of.read(path), path, needed):
        choices = of.answers(row["choices"], path, row["question_id"])
        right = row["correct_choice_idx"]
        if not isinstance(right, int) or not 0 <= right < len(choices):
            raise DatasetError(
                f"{of.name}: {path}, question {row['question_id']} has correct_choice_idx {right!r}, but "
                f"{len(choices)} choices. "
                f"{of.remedy}"
            )
        yield (
            str(row["question_id"]),
            f"{split}2017/{int(row['image_id']):012d}.jpg",
            {
                "question": str(row["question"]),
                "answers": of.answers(row["direct_answers"], path, row["question_id"]),
                "choice": choices,
                "right_choice": choices[right],
                "rationale": of.answers(row["rationales"], path, row["question_id"]),
            },
        )


def _read_infoseek(of: KnowledgeLayout, root: Path, split: str) -> Rows:
    path = root / of.lists.format(split=split)
    for row in of.checked(of.read(path), path, ("data_id", "image_id", "question", "answer")):
        image, number = f"images/{row['image_id']}.jpg", str(row["data_id"])
        answers = of.answers(row["answer"], path, number)
        more = row.get("answer_eval", [])
        aliases = [str(one) for one in more if isinstance(one, str)] if isinstance(more, list) else []
        texts = {"question": str(row["question"]), "answers": list(dict.fromkeys((*answers, *aliases)))}
        yield number, image, texts


OK_VQA = KnowledgeLayout(
    name="ok-vqa",
    lists="OpenEnded_mscoco_{split}2014_questions.json",
    rows=_read_ok_vqa,
    remedy="Arrange OK-VQA as ROOT/OpenEnded_mscoco_val2014_questions.json, ROOT/mscoco_val2014_annotations.json and "
    "COCO's images as ROOT/val2014/COCO_val2014_000000297147.jpg, and train in the same way",
)
A_OKVQA = KnowledgeLayout(
    name="a-okvqa",
    lists="aokvqa_v1p0_{split}.json",
    rows=_read_a_okvqa,
    remedy="Arrange A-OKVQA as ROOT/aokvqa_v1p0_val.json and COCO's images as ROOT/val2017/000000461751.jpg, and "
    "train in the same way",
)
INFOSEEK = KnowledgeLayout(
    name="infoseek",
    lists="infoseek_{split}.jsonl",
    rows=_read_infoseek,
    remedy="Arrange InfoSeek as ROOT/infoseek_val.jsonl with the images of its image_ids as "
    "ROOT/images/oven_05018274.jpg",
)


def ok_vqa(root: Path) -> Dataset:
    """Read OK-VQA (Marino et al., 2019): questions about COCO images, with ten answers each."""
    return OK_VQA.dataset(root)


def a_okvqa(root: Path) -> Dataset:
    """Read A-OKVQA (Schwenk et al., 2022): questions with ten answers, four choices and three rationales."""
    return A_OKVQA.dataset(root)


def infoseek(root: Path) -> Dataset:
    """Read InfoSeek (Chen et al., 2023): questions about entities, whose answers have aliases."""
    return INFOSEEK.dataset(root)
