"""R-RAD, R-SLAKE and R-Path: questions about medical images with rationales, from MedThink (Gai et al., 2024).

    r-rad      ROOT/closed-end/trainset.json, testset.json, and the same below open-end; ROOT/images/synpic1.jpg
    r-slake    ROOT/closed-end/train.json, test.json, and the same below open-end; ROOT/imgs/xmlab1/source.jpg
    r-path     ROOT/closed-end/trainset.json, testset.json, and the same below open-end; ROOT/images/NAME.jpg

One of closed-end and open-end suffices; the folders may be named closed_end and open_end, and the images may lie in
images, imgs or ROOT itself. A list is JSON: an object whose values are questions, or an array of questions. A question
has `question`, `choices`, `answer` (the number of the correct choice, from 0), `solution` (the rationale), and `image`,
`img_name` or SLAKE's `img_id`. The answer of an open question is its first choice. The label is the answer, if it is a
class of train; `kind` is closed or open.
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

KINDS = {"closed": ("closed-end", "closed_end"), "open": ("open-end", "open_end")}
FOLDERS = ("images", "imgs", "")
OPENED = {"question", "choices", "answer", "solution", "image", "img_name"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Rationales:
    """One of the three sets.

    Attributes:
        name: Name of the dataset.
        lists: File name of each split's list, in the folders of both kinds.
        example: Path of an image, for messages.
    """

    name: str
    lists: Mapping[str, str]
    example: str

    @property
    def remedy(self) -> str:
        """Sentence that explains how to arrange the data."""
        train, test = self.lists.values()
        return (
            f"Arrange MedThink's folder as ROOT/closed-end/{train} and {test}, ROOT/open-end/{train} and {test}, and "
            f"ROOT/{self.example}"
        )

    def dataset(self, root: Path) -> Dataset:
        """Read the splits below a folder.

        Args:
            root: Folder of the raw data.

        Raises:
            DatasetError: The folder has another layout.
        """
        require_folder(root, name=self.name, obtain=self.remedy)
        splits: dict[str, list[Source]] = {}
        for kind, names in KINDS.items():
            folder = next((root / name for name in names if (root / name).is_dir()), None)
            for split, file in self.lists.items() if folder is not None else ():
                path = (folder or root) / file
                if not path.is_file():
                    raise DatasetError(f"{self.name}: {path} does not exist. {self.remedy}")
                splits.setdefault(split, []).extend(self._sources(root, path, kind))
        if not splits:
            raise DatasetError(f"{self.name}: {root} contains neither closed-end nor open-end. {self.remedy}")
        label_names, labelled = number_answers(splits)
        return dataset_of(self.name, label_names, labelled, root=root, obtain=self.remedy, encoder=ImageTextEncoder())

    def _sources(self, root: Path, path: Path, kind: str) -> Iterator[Source]:
        listed = read_json(path, self.remedy)
        if isinstance(listed, list):
            listed = dict(enumerate(listed))
        if not isinstance(listed, dict) or not listed:
            raise DatasetError(f"{self.name}: {path} must contain questions, got {listed!r:.80}. {self.remedy}")
        pictures = next((root / one for one in FOLDERS if (root / one).is_dir()), root)
        for name, row in listed.items():
            try:
                picture, texts = find_picture(row), read_question(row, kind)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise DatasetError(
                    f"{self.name}: {path}, entry {name} is not a valid {kind} question with question, choices, answer, "
                    f"solution and image ({error!r}). {self.remedy}"
                ) from error
            others = {key: value for key, value in row.items() if key not in OPENED}
            yield Source(
                id=f"{kind}/{path.stem}/{name}",
                path=pictures / picture,
                meta={**others, **texts, "kind": kind, "image": picture},
            )


def find_picture(row: Mapping[str, Any]) -> str:
    """Return the path of a question's image below its folder. Raise KeyError if the question names none."""
    name = row.get("image") or row.get("img_name")
    return str(name) if name else f"xmlab{int(row['img_id'])}/source.jpg"


def read_question(row: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the texts of a question.

    Args:
        row: Parsed question.
        kind: "closed" or "open".

    Returns:
        `question`, `answer` and `rationale`, and `choice` for a closed question.

    Raises:
        KeyError, TypeError, ValueError, IndexError: The question is malformed.
    """
    choices, rationale = [str(choice) for choice in row["choices"]], " ".join(str(row["solution"]).split())
    if isinstance(row["choices"], str) or not choices or not rationale:
        raise ValueError(f"choices {row['choices']!r:.40} and solution {row['solution']!r:.40}")
    if kind == "open":
        return {"question": str(row["question"]), "answer": choices[0], "rationale": rationale}
    number = row["answer"]
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(choices):
        raise ValueError(f"the answer {number!r:.40} of {len(choices)} choices")
    return {"question": str(row["question"]), "answer": choices[number], "choice": choices, "rationale": rationale}


R_RAD = Rationales(name="r-rad", lists={"train": "trainset.json", "test": "testset.json"}, example="images/synpic1.jpg")
R_SLAKE = Rationales(
    name="r-slake", lists={"train": "train.json", "test": "test.json"}, example="imgs/xmlab1/source.jpg"
)
R_PATH = Rationales(name="r-path", lists={"train": "trainset.json", "test": "testset.json"}, example="images/NAME.jpg")


def r_rad(root: Path) -> Dataset:
    """Read R-RAD: questions of VQA-RAD with rationales."""
    return R_RAD.dataset(root)


def r_slake(root: Path) -> Dataset:
    """Read R-SLAKE: questions of SLAKE with rationales."""
    return R_SLAKE.dataset(root)


def r_path(root: Path) -> Dataset:
    """Read R-Path: questions of PathVQA with rationales."""
    return R_PATH.dataset(root)
