"""ROCO and MedICaT: captioned medical images in the layout of M3AE's authors (Chen et al., 2022).

    ROOT/roco/{train,val,test}/radiology/captions.txt   NAME, a tab and the caption, of images/NAME.jpg beside it,
                                                   or of NAME.dcm
    ROOT/medicat/release/s2_full_figures_oa_nonroco_combined_medical_top4_public.jsonl, release/figures/HASH_URI

One of the two suffices. As in M3AE, captions of fewer than three words are dropped, and only MedICaT's radiological
figures are used, with their caption and the sentences that refer to them; a loader draws one of these as the caption.
MedICaT has no splits: by the hash of its name, each paper has a 1 % chance to be in validation and 1 % to be in test
(authors: 1,000 random figures each).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

from maskstream.preprocess.encode.image_text.encoder import ImageTextEncoder
from maskstream.preprocess.raw.lists import read_lines
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .dataset import Dataset, dataset_of, require_folder

NAME = "m3ae-style"
MEDICAT = "medicat/release/s2_full_figures_oa_nonroco_combined_medical_top4_public.jsonl"
FIGURES = "medicat/release/figures"
LEAST_WORDS = 3
HELD_OUT = 0.01
OBTAIN = (
    "Arrange the data as ROOT/roco/train/radiology/captions.txt with images/NAME.jpg next to it, or as "
    f"ROOT/{MEDICAT} with ROOT/{FIGURES}/"
)


def m3ae_style(root: Path) -> Dataset:
    """Read ROCO and MedICaT, captioned medical images, in the layout of M3AE's authors.

    Args:
        root: Folder of the raw data.

    Raises:
        DatasetError: The folder has another layout.
    """
    require_folder(root, name=NAME, obtain=OBTAIN)
    splits: dict[str, list[Source]] = {}
    for split in ("train", "val", "test"):
        captions = root / "roco" / split / "radiology" / "captions.txt"
        if captions.is_file():
            splits.setdefault(split, []).extend(_read_roco(captions, split))
    if (root / MEDICAT).is_file():
        for split, source in _read_medicat(root):
            splits.setdefault(split, []).append(source)
    if not any(splits.values()):
        raise DatasetError(f"{NAME}: {root} contains neither ROCO's captions nor MedICaT's list. {OBTAIN}")
    return dataset_of(NAME, (), splits, root=root, obtain=OBTAIN, encoder=ImageTextEncoder(), labelled=False)


def _read_roco(captions: Path, split: str) -> Iterator[Source]:
    folder = captions.parent / "images"
    dicom = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix == ".dcm"} if folder.is_dir() else {}
    for number, line in read_lines(captions):
        name, tab, caption = line.partition("\t")
        if not tab:
            raise DatasetError(f"{captions}: line {number} has no tab between the name and the caption. {OBTAIN}")
        if kept := _kept([caption]):
            name = name.strip()
            path = dicom.get(name, folder / f"{name}.jpg")
            yield Source(id=f"roco/{split}/{name}", path=path, meta={"caption": kept})


def _read_medicat(root: Path) -> Iterator[tuple[str, Source]]:
    """Yield the split and source of each radiological figure."""
    for number, line in read_lines(root / MEDICAT):
        try:
            figure: dict[str, Any] = json.loads(line)
            paper, name = str(figure["pdf_hash"]), str(figure["fig_uri"])
            wanted = bool(figure["radiology"])
        except (ValueError, TypeError, KeyError) as error:
            raise DatasetError(
                f"{root / MEDICAT}: line {number} is not a figure with pdf_hash, fig_uri and radiology ({error!r}). "
                f"{OBTAIN}"
            ) from error
        texts = [figure.get("s2_caption") or "", *(figure.get("s2orc_references") or [])]
        if wanted and (kept := _kept(texts)):
            file = f"{paper}_{name}"
            yield (
                _split(paper),
                Source(id=f"medicat/{file}", path=root / FIGURES / file, meta={"caption": kept}),
            )


def _kept(texts: list[str]) -> list[str]:
    """Return the texts of at least three words, with single spaces."""
    clean = [" ".join(str(text).split()) for text in texts]
    return [text for text in clean if len(text.split()) >= LEAST_WORDS]


def _split(paper: str) -> str:
    place = xxhash.xxh3_64_intdigest(paper.encode()) / 2**64
    return "val" if place < HELD_OUT else "test" if place < 2 * HELD_OUT else "train"
