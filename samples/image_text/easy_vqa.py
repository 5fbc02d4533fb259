"""easy-VQA: generated images of 64 x 64 pixels, each with one shape in one of eight colours, and 48,248 questions about
them.

They come from the Python package easy-vqa (3 MB, MIT). `easy-vqa` has a sample for each question: 38,575 for training
and 9,673, about other images, for validation. The label is the answer, one of 13; `kind` in the `json` is the type of
the question: shape, colour or yes/no (74 %). `easy-vqa-captions` has a sample for each image, 4,000 and 1,000, with a
caption such as "a blue triangle" derived from the answers to its questions, for pre-training without questions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.encode.image_text.encoder import ImageTextEncoder
from maskstream.preprocess.raw.lists import read_json
from maskstream.preprocess.source import Source
from maskstream.samples.packages import Package, fetch_folder
from maskstream.shards.errors import DatasetError

PACKAGE = Package(
    name="easy-vqa", version="1.0", sha256="fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f"
)
INSIDE = "easy_vqa/data"
SPLITS = {"train": "train", "val": "test"}
SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
ANSWERS = tuple(sorted((*SHAPES, *COLOURS, "yes", "no")))
TOKENIZER = "train:wordpiece:512"


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnQuestion:
    """A question about image number `image`, and its answer."""

    image: int
    text: str
    answer: str

    @property
    def kind(self) -> str:
        """Type of the question, which is the type of its answer."""
        return "shape" if self.answer in SHAPES else "colour" if self.answer in COLOURS else "yes/no"

    @property
    def told(self) -> set[str]:
        """Shapes and colours of the image, according to the question and its answer."""
        words = {*self.text.rstrip("?").split()}
        if self.kind == "yes/no" and (self.answer == "yes") == bool(words & {"not", "no"}):
            return set()
        return (words | {self.answer}) & {*SHAPES, *COLOURS}


def easy_vqa(root: Path) -> Dataset:
    """Read the questions, downloaded into `root`. Raises DatasetError if that fails, or the package contains something
    else.
    """
    folder = fetch_folder(PACKAGE, INSIDE, root)
    splits = {split: list(_asked(folder / name, name)) for split, name in SPLITS.items()}
    return Dataset(name="easy-vqa", label_names=ANSWERS, splits=splits, encoder=ImageTextEncoder(tokenizer=TOKENIZER))


def easy_vqa_captions(root: Path) -> Dataset:
    """Read the images with captions, downloaded into `root`; raise DatasetError as `easy_vqa` does."""
    folder = fetch_folder(PACKAGE, INSIDE, root)
    splits = {split: list(_add_captions(folder / name, name)) for split, name in SPLITS.items()}
    encoder = ImageTextEncoder(tokenizer=TOKENIZER)
    return Dataset(name="easy-vqa-captions", label_names=SHAPES, splits=splits, encoder=encoder)


def questions(path: Path) -> list[DrawnQuestion]:
    """Read questions.json, a list of [question, answer, number of the image]. Raise DatasetError if it is malformed."""
    again = "Remove its folder to download it again"
    listed = read_json(path, again)
    found = []
    for row in listed if isinstance(listed, list) else [None]:
        if not isinstance(row, list) or len(row) != 3 or row[1] not in ANSWERS or not isinstance(row[2], int):
            raise DatasetError(f"{path} has {row!r}, not [question, answer, picture] with a known answer. {again}")
        found.append(DrawnQuestion(text=str(row[0]), answer=row[1], image=row[2]))
    return found


def _asked(folder: Path, name: str) -> Iterator[Source]:
    for number, one in enumerate(questions(folder / "questions.json")):
        yield Source(
            id=f"{name}/{number}",
            path=folder / "images" / f"{one.image}.png",
            label=ANSWERS.index(one.answer),
            meta={"question": one.text, "answer": one.answer, "kind": one.kind, "image": one.image},
        )


def _add_captions(folder: Path, name: str) -> Iterator[Source]:
    """Yield each image with the shape and the colour that its questions reveal; images without both are skipped."""
    said: dict[int, set[str]] = {}
    for one in questions(folder / "questions.json"):
        said.setdefault(one.image, set()).update(one.told)
    for image, words in sorted(said.items()):
        shape = next((word for word in SHAPES if word in words), None)
        colour = next((word for word in COLOURS if word in words), None)
        if shape and colour:
            yield Source(
                id=f"{name}/{image}",
                path=folder / "images" / f"{image}.png",
                label=SHAPES.index(shape),
                meta={"caption": f"a {colour} {shape}", "colour": colour, "image": image},
            )
