"""Folders of images, alone or with texts, in common layouts."""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskstream.preprocess.encode.image.encoder import IMAGE_SUFFIXES, ImageEncoder
from maskstream.preprocess.encode.image_text.encoder import ImageTextEncoder
from maskstream.preprocess.raw.lists import LIST_SUFFIXES, is_path, read_json
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError, OutageError
from maskstream.shards.format.sample import Reject
from maskstream.shards.members.text import ROLES
from maskstream.shards.named import list_few

from .dataset import Dataset, dataset_of, in_archives, require_folder, split_lists
from .folders import SPLIT_FOLDERS, list_media_below, readable, split_folders
from .listed import find_lists, listed_sources

log = logging.getLogger(__name__)

IMAGEFOLDER = "imagefolder"
IMAGEFOLDER_OBTAIN = (
    "Arrange the images as ROOT/train/CLASS/*.jpg and ROOT/val/CLASS/*.jpg, such as ROOT/train/n01440764/*.JPEG"
)


@in_archives()
def imagefolder(root: Path) -> Dataset:
    """Read the layout of ImageNet and of torchvision's ImageFolder: SPLIT/CLASS/... below ROOT.

    `train` is required; `val` (or `valid`, `validation`) and `test` are read if they exist. Every image lies in the
    folder of its class, and a class is numbered by its position in the sorted names of `train`, as in ImageFolder; so a
    class that only another split has is an error. ImageNet's validation images are published in one folder; the usual
    script that moves them into class folders creates this layout.

    Deng et al., ImageNet: A Large-Scale Hierarchical Image Database, CVPR 2009.

    Args:
        root: Folder of the raw data.

    Raises:
        DatasetError: The folder has another layout.
    """
    require_folder(root, name=IMAGEFOLDER, obtain=IMAGEFOLDER_OBTAIN)
    folders = split_folders(root)
    if "train" not in folders:
        raise DatasetError(f"{IMAGEFOLDER}: there is no folder train in {root}. {IMAGEFOLDER_OBTAIN}")
    label_names = _list_classes(folders["train"])
    if not label_names:
        raise DatasetError(f"{IMAGEFOLDER}: {folders['train']} contains no class folders. {IMAGEFOLDER_OBTAIN}")
    numbers = {name: number for number, name in enumerate(label_names)}
    for folder in folders.values():
        if strange := [name for name in _list_classes(folder) if name not in numbers]:
            raise DatasetError(
                f"{IMAGEFOLDER}: {folder} has {len(strange)} classes that train does not have, such as {strange[0]!r}; "
                f"all splits must have the classes of train. {IMAGEFOLDER_OBTAIN}"
            )
    places = [(split, name) for split, folder in folders.items() for name in _list_classes(folder)]
    others = Counter[str]()
    found = list_media_below([folders[split] / name for split, name in places], IMAGE_SUFFIXES, others)
    listed: dict[str, list[Source]] = {split: [] for split in folders}
    for (split, name), paths in zip(places, found, strict=True):
        listed[split] += [Source(id=readable(path.relative_to(root)), path=path, label=numbers[name]) for path in paths]
    names = [readable(Path(name)) for name in label_names]
    dataset = dataset_of(IMAGEFOLDER, names, listed, root=root, obtain=IMAGEFOLDER_OBTAIN, encoder=ImageEncoder())
    return replace(dataset, passed_over=others)


def _list_classes(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


IMAGE_TEXT_FOLDER = "image-text-folder"
IMAGE_TEXT_OBTAIN = (
    "Give each image a text file of the same name, as ROOT/train/0001.jpg and ROOT/train/0001.txt, put the tars of "
    "img2dataset into ROOT, as ROOT/00000.tar, or list images and texts in ROOT/metadata.jsonl, one per line: "
    '{"file_name": "0001.jpg", "caption": "..."}'
)
CAPTION, CONVERSATIONS = "caption", "conversations"
CAPTIONS = (CAPTION, "text", "captions", "txt", "TEXT", "alt_text", "sentence", "sentences", "description", "prompt")
"""Columns that may contain the caption, in the order in which they are tried."""


@in_archives(".json", ".txt", *LIST_SUFFIXES)
def image_text_folder(root: Path) -> Dataset:
    """Read images with texts: from text files of the same names, as img2dataset writes them, or from a list.

        ROOT/00000.tar ...                with KEY.jpg, KEY.txt and KEY.json for each picture (WebDataset); not unpacked
        ROOT/train/**/KEY.jpg, KEY.txt    or any folders; val and test in the same way, and without train all is train
        ROOT/metadata.jsonl               as in Hugging Face's imagefolder, also csv, tsv and Parquet, in ROOT or in the
                                          folder of each split: `file_name`, and `caption` or `text`
        ROOT/llava.json                   as in LLaVA: [{"image": PATH, "conversations": [{"from": "human", "value":
                                          "<image>\\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]}, ...]

    The text is the caption. KEY.json, if it exists, is an object whose texts, numbers and booleans go into the sample's
    `json`; its `caption` is used if there is no text file. A list may have the other roles too (question, answer,
    choice, rationale, phrase, passage), each a text or a list of texts; its other columns go into `json`. In
    conversations, the turns of the human are questions and the replies are answers. An image without a text is a
    reject.

    Args:
        root: Folder of the raw data.

    Raises:
        DatasetError: There are no images with texts, or a list cannot be used.
    """
    require_folder(root, name=IMAGE_TEXT_FOLDER, obtain=IMAGE_TEXT_OBTAIN)
    if listed := _read_listed_pictures(root):
        return listed
    folders = split_folders(root)
    folders = folders if "train" in folders else {"train": root}
    splits: dict[str, list[Source]] = {}
    missing: dict[str, list[Reject]] = {}
    skipped = Counter[str]()
    for split, paths in zip(folders, list_media_below(list(folders.values()), IMAGE_SUFFIXES, skipped), strict=True):
        for path in paths:
            name, about = readable(path.relative_to(root)), _read_about(path)
            if "caption" in about:
                splits.setdefault(split, []).append(Source(id=name, path=path, meta=about))
            else:
                missing.setdefault(split, []).append(Reject(source=name, stage="missing", reason="has no text"))
    if not splits:
        others = [path.name for path in _list_beside_pictures(root, (".json", *LIST_SUFFIXES))]
        lists = f", and {list_few(others)} there do not list images with texts" if others else ""
        raise DatasetError(
            f"{IMAGE_TEXT_FOLDER}: {root} has no images with a text file of the same name{lists}. {IMAGE_TEXT_OBTAIN}"
        )
    return Dataset(
        name=IMAGE_TEXT_FOLDER,
        label_names=(),
        splits=splits,
        missing=missing,
        encoder=ImageTextEncoder(),
        passed_over={kind: count for kind, count in skipped.items() if kind not in (".txt", ".json")},
    )


def _read_listed_pictures(root: Path) -> Dataset | None:
    """Return the dataset of the lists in `root`; None if there are none."""
    encoder, doubt = ImageTextEncoder(), ""
    if lists := find_lists(root, IMAGE_TEXT_FOLDER, encoder.modality):
        found = listed_sources(lists, root, encoder, obtain=IMAGE_TEXT_OBTAIN)
        label_names, splits, doubt = found.label_names, found.splits, found.doubt
        splits = {
            split: [replace(source, meta=_add_caption(source.meta)) for source in sources]
            for split, sources in splits.items()
        }
    else:
        label_names, splits = (), _read_conversations(root)
    if not splits:
        return None
    told = {split: [one for one in sources if {*ROLES} & {*one.meta}] for split, sources in splits.items()}
    if not any(told.values()):
        raise DatasetError(f"{IMAGE_TEXT_FOLDER}: the list in {root} has no texts. {IMAGE_TEXT_OBTAIN}")
    dataset = dataset_of(
        IMAGE_TEXT_FOLDER,
        label_names,
        {split: sources for split, sources in told.items() if sources},
        root=root,
        obtain=IMAGE_TEXT_OBTAIN,
        encoder=encoder,
        doubt=doubt,
        labelled=False,
    )
    silent = {split: [one for one in sources if not {*ROLES} & {*one.meta}] for split, sources in splits.items()}
    for split, sources in silent.items():
        dataset.missing.setdefault(split, []).extend(
            Reject(source=one.id, stage="missing", reason="has no text") for one in sources
        )
    return dataset


def _add_caption(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a row, with its caption under the name "caption"."""
    about = dict(meta)
    if not {*ROLES} & {*about} and (name := next((name for name in CAPTIONS if name in about), None)):
        about[CAPTION] = about.pop(name)
    return about


def _read_conversations(root: Path) -> dict[str, list[Source]]:
    """Return the sources of LLaVA lists: one in `root`, or one for each split; {} if there are none."""
    paths = [path for path in _list_beside_pictures(root, (".json",)) if _is_array(path)]
    if not paths:
        return {}
    lists = {"train": paths[0]}
    if len(paths) > 1:
        lists = split_lists(IMAGE_TEXT_FOLDER, (root,), SPLIT_FOLDERS, (".json",), IMAGE_TEXT_OBTAIN)
    return {split: list(_read_conversing(root, path)) for split, path in lists.items()}


def _list_beside_pictures(root: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the files in `root` with these suffixes, except files that belong to an image of the same name."""
    pictures = {path.stem for path in root.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
    found = (path for path in sorted(root.iterdir()) if path.suffix.lower() in suffixes)
    return [path for path in found if path.stem not in pictures and path.is_file()]


def _is_array(path: Path) -> bool:
    """Return whether a JSON file begins like an array."""
    with path.open("rb") as file:
        return file.read(64).lstrip()[:1] == b"["


def _read_conversing(root: Path, path: Path) -> Iterator[Source]:
    entries = read_json(path, IMAGE_TEXT_OBTAIN)
    base: Path | None = None
    if texts := sum(isinstance(entry, dict) and not entry.get("image") for entry in entries):
        log.warning("%s: %d of %d conversations have no image and are skipped", path, texts, len(entries))
    for number, entry in enumerate(entries):
        where = f"{path}: entry {number}"
        if not isinstance(entry, dict) or CONVERSATIONS not in entry:
            raise DatasetError(f"{where} is not an object with `image` and `{CONVERSATIONS}`. {IMAGE_TEXT_OBTAIN}")
        images = _list_images(entry, where)
        if not images:
            continue
        places = (root, root / "images", root / "image")
        base = base or next((place for place in places if (place / images[0]).is_file()), root)
        first, *others = [base / one for one in images]
        about = {
            key: value
            for key, value in entry.items()
            if isinstance(value, str | int | float) and key not in ("image", "label", "source", "crop", "key")
        }
        yield Source(
            id=f"{images[0]}:{number}",
            path=first,
            parts=tuple(others),
            meta=about | {"image": images[0]} | parse_conversation(entry[CONVERSATIONS], where),
        )


def _list_images(entry: Mapping[str, Any], where: str) -> list[str]:
    images = entry.get("image")
    images = [images] if isinstance(images, str) else images or []
    if not isinstance(images, list) or not all(isinstance(one, str) and one and is_path(one) for one in images):
        raise DatasetError(f"{where} has the image {ascii(images)[:80]}; it must be a path or a list of paths")
    return images


_MARK = re.compile(r"\s*<image>\s*")
_HUMAN, _ANSWER = ("human", "user"), ("gpt", "assistant")


def parse_conversation(turns: object, where: str) -> dict[str, list[str]]:
    """Split a conversation into questions and answers.

    Args:
        turns: List of {"from" or "role": speaker, "value" or "content": text}. Image placeholders and system turns are
            dropped.
        where: File and row, for messages.

    Returns:
        Lists of texts under "question" and "answer".

    Raises:
        DatasetError: The conversation has another form.
    """
    found: dict[str, list[str]] = {"question": [], "answer": [], "system": []}
    for turn in turns if isinstance(turns, list) else [turns]:
        said = turn if isinstance(turn, dict) else {}
        who, text = said.get("from", said.get("role")), said.get("value", said.get("content"))
        role = "question" if who in _HUMAN else "answer" if who in _ANSWER else who
        if role not in found or not isinstance(text, str):
            raise DatasetError(
                f"{where} has the turn {str(turn)[:80]!r}; it must be like {{'from': 'human', 'value': TEXT}}, "
                f"with one of {', '.join((*_HUMAN, *_ANSWER, 'system'))}"
            )
        found[role].append(_MARK.sub(" ", text).strip())
    if len(found["question"]) != len(found["answer"]):
        raise DatasetError(
            f"{where} has {len(found['question'])} questions and {len(found['answer'])} answers; both numbers must be "
            "equal"
        )
    return {role: texts for role, texts in found.items() if texts and role != "system"}


def _read_about(path: Path) -> dict[str, Any]:
    """Read the files next to an image: its caption and other entries."""
    beside, text = path.with_suffix(".json"), path.with_suffix(".txt")
    try:
        found = read_json(beside, IMAGE_TEXT_OBTAIN) if beside.is_file() else {}
        about = {key: value for key, value in found.items() if isinstance(value, str | int | float)}
        if text.is_file():
            about["caption"] = text.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise OutageError(f"{text} cannot be read ({error.strerror}); run the same command again") from error
    except AttributeError as error:
        raise DatasetError(
            f"{beside} must contain an object, got a {type(found).__name__}. {IMAGE_TEXT_OBTAIN}"
        ) from error
    caption = about.pop("caption", None)
    return {**about, "caption": " ".join(caption.split())} if isinstance(caption, str) and caption.strip() else about
