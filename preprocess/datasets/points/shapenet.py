"""ShapeNetCore in one of two forms: PointFlow's clouds, or the original models.

Files in ROOT, or one folder down (such as ShapeNetCore.v2.PC15k):

    SYNSET/{train,val,test}/MODEL.npy           PointFlow: clouds of 15,000 points in their published (random) order
    SYNSET/MODEL/models/model_normalized.obj    ShapeNetCore.v2 (v1: SYNSET/MODEL/model.obj); points are sampled on it

SYNSET is a number of eight digits; labels are the categories found, sorted by this number. The splits of the models are
those of `all.csv` (id, synsetId, subSynsetId, modelId, split) in ROOT or one folder down; without it, all models are
train. PointFlow trains on the first 10,000 points and keeps the others for reference (`PointSelection(rows=...)`).

A. X. Chang et al., ShapeNet, 2015; G. Yang et al., PointFlow, ICCV 2019.
"""

from __future__ import annotations

from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset, dataset_of, first_existing, in_archives, require_folder
from maskstream.preprocess.datasets.folders import distinct_folders, readable
from maskstream.preprocess.encode.points.encoder import PUBLISHED_ORDER, PointEncoder
from maskstream.preprocess.raw.lists import read_table
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

OBTAIN = (
    "Get ShapeNetCore.v2.PC15k (linked from PointFlow's repository) and unpack it, so that there is ROOT/02691156/"
    "train/*.npy; or ShapeNetCore.v2 from shapenet.org with its all.csv, so that there is ROOT/02691156/*/models/*.obj"
)
SPLITS = ("train", "val", "test")

_CATEGORIES = """
02691156 airplane, 02747177 trash bin, 02773838 bag, 02801938 basket, 02808440 bathtub, 02818832 bed, 02828884 bench,
02843684 birdhouse, 02871439 bookshelf, 02876657 bottle, 02880940 bowl, 02924116 bus, 02933112 cabinet, 02942699 camera,
02946921 can, 02954340 cap, 02958343 car, 02992529 cellphone, 03001627 chair, 03046257 clock, 03085013 keyboard,
03207941 dishwasher, 03211117 display, 03261776 earphone, 03325088 faucet, 03337140 file cabinet, 03467517 guitar,
03513137 helmet, 03593526 jar, 03624134 knife, 03636649 lamp, 03642806 laptop, 03691459 loudspeaker, 03710193 mailbox,
03759954 microphone, 03761084 microwave, 03790512 motorbike, 03797390 mug, 03928116 piano, 03938244 pillow,
03948459 pistol, 03991062 flowerpot, 04004475 printer, 04074963 remote, 04090263 rifle, 04099429 rocket,
04225987 skateboard, 04256520 sofa, 04330267 stove, 04379243 table, 04401088 telephone, 04460130 tower, 04468005 train,
04530566 watercraft, 04554684 washer
"""
CATEGORIES = dict(entry.split(maxsplit=1) for entry in " ".join(_CATEGORIES.split()).split(", "))
"""Names of the 55 synsets."""


@in_archives(".csv")
def shapenet(root: Path) -> Dataset:
    """The clouds, or else the models. Raises DatasetError if there are neither."""
    require_folder(root, name="shapenet", obtain=OBTAIN)
    base, synsets = _synsets(root)
    listed = _clouds(base, synsets) or _models(root, base, synsets)
    if not listed:
        raise DatasetError(f"shapenet: the folders of {base} hold neither SPLIT/*.npy nor MODEL/**/*.obj. {OBTAIN}")
    names = [CATEGORIES.get(synset, synset) for synset in synsets]
    return dataset_of("shapenet", names, listed, root=root, obtain=OBTAIN, encoder=PointEncoder())


def _synsets(root: Path) -> tuple[Path, list[str]]:
    """The parent folder of the categories' folders, and their names, sorted."""
    for base in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        named = (path for path in base.iterdir() if len(path.name) == 8 and path.name.isdecimal())
        found = [path.name for path in distinct_folders(named)]
        if found:
            return base, found
    raise DatasetError(
        f"shapenet: neither {root} nor a folder in it holds a folder named by a synset of eight digits. {OBTAIN}"
    )


def _clouds(base: Path, synsets: list[str]) -> dict[str, list[Source]]:
    folders = set(distinct_folders(base / synset / split for synset in synsets for split in SPLITS))
    found = {
        split: [
            Source(id=readable(path.relative_to(base)), path=path, label=number, meta={"rows": PUBLISHED_ORDER})
            for number, synset in enumerate(synsets)
            if base / synset / split in folders
            for path in sorted((base / synset / split).glob("*.npy"))
        ]
        for split in SPLITS
    }
    return {split: sources for split, sources in found.items() if sources}


def _models(root: Path, base: Path, synsets: list[str]) -> dict[str, list[Source]]:
    splits = _published_splits(root)
    found: dict[str, list[Source]] = {}
    for number, synset in enumerate(synsets):
        for folder in distinct_folders((base / synset).iterdir()):
            path = first_existing(folder, "models/model_normalized.obj", "model.obj")
            if path is None:
                continue
            split = splits.get((synset, folder.name), "train" if not splits else None)
            if split is not None:
                source = Source(id=readable(folder.relative_to(base)), path=path, label=number)
                found.setdefault(split, []).append(source)
    return found


def _published_splits(root: Path) -> dict[tuple[str, str], str]:
    """The split of each (synset, model) in all.csv; empty without the file."""
    path = first_existing(root, "all.csv", "*/all.csv")
    if path is None:
        return {}
    rows = read_table(path, ("synsetId", "modelId", "split"), obtain=OBTAIN)
    found = {(row["synsetId"].zfill(8), row["modelId"]): row["split"] for row in rows}
    if unknown := sorted(set(found.values()) - set(SPLITS)):
        raise DatasetError(f"shapenet: {path} has the split {unknown[0]!r}; legal are {', '.join(SPLITS)}")
    return found
