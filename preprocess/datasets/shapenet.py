"""ShapeNet: PointFlow's clouds or the original models, and the clouds that Point-BERT and Point-MAE use.

`shapenet`: files in ROOT, or one folder down (such as ShapeNetCore.v2.PC15k):

    SYNSET/{train,val,test}/MODEL.npy           PointFlow: clouds of 15,000 points in their published (random) order
    SYNSET/MODEL/models/model_normalized.obj    ShapeNetCore.v2 (v1: SYNSET/MODEL/model.obj); points are sampled on it

SYNSET is a number of eight digits; labels are the existing categories, sorted by this number. The splits of the models
are listed in `all.csv` (id, synsetId, subSynsetId, modelId, split) in ROOT or one folder down; without it, all models
are train. PointFlow trains on the first 10,000 points and keeps the others for reference (`PointSelection(rows=...)`).

The other datasets: files in ROOT, in a folder of it, or one further down:

    ShapeNet55-34/shapenet_pc/SYNSET-MODEL.npy       clouds of 8,192 points
    ShapeNet55-34/ShapeNet-55/{train,test}.txt       their names, one per line (ShapeNet-34/ for shapenet34)

    shapenetcore_partanno_segmentation_benchmark_v0_normal/
        synsetoffset2category.txt                    names and synsets of 16 categories
        train_test_split/shuffled_{train,val,test}_file_list.json
        SYNSET/MODEL.txt                             x, y, z, a normal and a part number in each line

The test list of ShapeNet55 becomes the split `val`. ShapeNetPart has the three published splits.

A. X. Chang et al., ShapeNet, 2015; L. Yi et al., SIGGRAPH Asia 2016; G. Yang et al., PointFlow, ICCV 2019; X. Yu et
al., Point-BERT, CVPR 2022.
"""

from pathlib import Path, PurePosixPath

from maskstream.preprocess.encode.points.clouds import NORMALS, XYZ
from maskstream.preprocess.encode.points.encoder import PUBLISHED_ORDER, PointEncoder
from maskstream.preprocess.raw.lists import read_json, read_lines, read_table
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .dataset import Dataset, dataset_of, find_first_existing, in_archives, require_folder
from .folders import list_distinct_folders, readable

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
    """Read ShapeNetCore in one of two forms: PointFlow's clouds, or the original models.

    Args:
        root: Folder of the raw data.

    Raises:
        DatasetError: The folder has neither.
    """
    require_folder(root, name="shapenet", obtain=OBTAIN)
    base, synsets = _list_synsets(root)
    listed = _list_clouds(base, synsets) or _list_models(root, base, synsets)
    if not listed:
        raise DatasetError(f"shapenet: the folders of {base} contain neither SPLIT/*.npy nor MODEL/**/*.obj. {OBTAIN}")
    names = [CATEGORIES.get(synset, synset) for synset in synsets]
    return dataset_of("shapenet", names, listed, root=root, obtain=OBTAIN, encoder=PointEncoder())


def _list_synsets(root: Path) -> tuple[Path, list[str]]:
    """Return the parent folder of the categories' folders, and their sorted names."""
    for base in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        named = (path for path in base.iterdir() if len(path.name) == 8 and path.name.isdecimal())
        found = [path.name for path in list_distinct_folders(named)]
        if found:
            return base, found
    raise DatasetError(
        f"shapenet: neither {root} nor a folder in it contains a folder named after an eight-digit synset. {OBTAIN}"
    )


def _list_clouds(base: Path, synsets: list[str]) -> dict[str, list[Source]]:
    folders = set(list_distinct_folders(base / synset / split for synset in synsets for split in SPLITS))
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


def _list_models(root: Path, base: Path, synsets: list[str]) -> dict[str, list[Source]]:
    splits = _read_published_splits(root)
    found: dict[str, list[Source]] = {}
    for number, synset in enumerate(synsets):
        for folder in list_distinct_folders((base / synset).iterdir()):
            path = find_first_existing(folder, "models/model_normalized.obj", "model.obj")
            if path is None:
                continue
            split = splits.get((synset, folder.name), "train" if not splits else None)
            if split is not None:
                source = Source(id=readable(folder.relative_to(base)), path=path, label=number)
                found.setdefault(split, []).append(source)
    return found


def _read_published_splits(root: Path) -> dict[tuple[str, str], str]:
    """Return the split of each (synset, model) in all.csv; empty without the file."""
    path = find_first_existing(root, "all.csv", "*/all.csv")
    if path is None:
        return {}
    rows = read_table(path, ("synsetId", "modelId", "split"), obtain=OBTAIN)
    found = {(row["synsetId"].zfill(8), row["modelId"]): row["split"] for row in rows}
    if unknown := sorted(set(found.values()) - set(SPLITS)):
        raise DatasetError(f"shapenet: {path} has the split {unknown[0]!r}; use one of {', '.join(SPLITS)}")
    return found


LISTS_OBTAIN = (
    "Get ShapeNet55-34 as described in DATASET.md of github.com/Pang-Yatian/Point-MAE, so that there are ROOT/"
    "ShapeNet55-34/ShapeNet-55/train.txt and ROOT/ShapeNet55-34/shapenet_pc/*.npy"
)
PART_OBTAIN = (
    "Get shapenetcore_partanno_segmentation_benchmark_v0_normal.zip and unpack it, so that there is ROOT/"
    "shapenetcore_partanno_segmentation_benchmark_v0_normal/synsetoffset2category.txt"
)


@in_archives(".txt")
def shapenet55(root: Path, name: str = "shapenet55", lists: str = "ShapeNet-55") -> Dataset:
    """Read ShapeNet as Point-BERT and Point-MAE use it: ShapeNet55, or its 34 seen categories.

    Args:
        root: Folder of the raw data.
        name: Name of the dataset.
        lists: Folder of the lists that name the clouds of each split.

    Raises:
        DatasetError: The folder has another layout.
    """
    require_folder(root, name=name, obtain=LISTS_OBTAIN)
    base = _find_folder_with(root, f"{lists}/train.txt", name, LISTS_OBTAIN)
    names = {
        split: [line for _, line in read_lines(base / lists / f"{file}.txt")]
        for split, file in (("train", "train"), ("val", "test"))
    }
    synsets = sorted({line.partition("-")[0] for some in names.values() for line in some})
    numbers = {synset: number for number, synset in enumerate(synsets)}
    listed = {
        split: [
            Source(id=line, path=base / "shapenet_pc" / line, label=numbers[line.partition("-")[0]]) for line in some
        ]
        for split, some in names.items()
    }
    labels = [CATEGORIES.get(synset, synset) for synset in synsets]
    return dataset_of(name, labels, listed, root=root, obtain=LISTS_OBTAIN, encoder=PointEncoder())


@in_archives(".json", ".txt")
def shapenetpart(root: Path) -> Dataset:
    """Read ShapeNetPart as Point-MAE uses it: clouds of 16 categories with a part number at each point.

    Args:
        root: Folder of the raw data.

    Raises:
        DatasetError: The folder has another layout.
    """
    name = "shapenetpart"
    require_folder(root, name=name, obtain=PART_OBTAIN)
    base = _find_folder_with(root, "synsetoffset2category.txt", name, PART_OBTAIN)
    synsets = {}
    for number, line in read_lines(base / "synsetoffset2category.txt"):
        category, _, synset = line.partition("\t")
        if not synset.strip().isdecimal():
            raise DatasetError(
                f"{name}: line {number} of synsetoffset2category.txt is malformed: {line!r}. {PART_OBTAIN}"
            )
        synsets[synset.strip()] = category
    labels = sorted(synsets.values())
    listed: dict[str, list[Source]] = {}
    for split in SPLITS:
        path = base / "train_test_split" / f"shuffled_{split}_file_list.json"
        if not path.is_file():
            raise DatasetError(f"{name}: {path} does not exist. {PART_OBTAIN}")
        listed[split] = [_read_part_cloud(base, path, entry, synsets, labels) for entry in read_json(path, PART_OBTAIN)]
    return dataset_of(
        name, labels, listed, root=root, obtain=PART_OBTAIN, encoder=PointEncoder(columns=(*XYZ, *NORMALS, "part"))
    )


def _read_part_cloud(base: Path, path: Path, entry: object, synsets: dict[str, str], labels: list[str]) -> Source:
    """Return the cloud of an entry such as shape_data/02691156/1a04e3eab45ca15dd86060f189eb133."""
    synset, model = (PurePosixPath(str(entry)).parts or ("", ""))[-2:]
    if synset not in synsets:
        raise DatasetError(
            f"shapenetpart: {path} has the entry {str(entry)[:80]!r} from an unknown synset. {PART_OBTAIN}"
        )
    return Source(id=f"{synset}/{model}", path=base / synset / f"{model}.txt", label=labels.index(synsets[synset]))


def _find_folder_with(root: Path, name: str, dataset: str, obtain: str) -> Path:
    """Return ROOT, or a folder up to two levels below, that contains a file."""
    for pattern in (name, f"*/{name}", f"*/*/{name}"):
        for path in sorted(root.glob(pattern)):
            return path.parents[len(PurePosixPath(name).parts) - 1]
    raise DatasetError(f"{dataset}: there is no {name} in {root} or up to two folders down. {obtain}")
