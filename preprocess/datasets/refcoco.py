"""RefCOCO, RefCOCO+ and RefCOCOg: phrases that refer to an object in a photograph, with its box and its segment.

Sources: Kazemzadeh et al. (2014), Yu et al. (2016), Mao et al. (2016).

    ROOT/refs.json         the list of refs(unc).p, refs(google).p or refs(umd).p, written as JSON
    ROOT/instances.json    as it is
    ROOT/train2014/        COCO's images, or ROOT/images/mscoco/images/train2014/

The publishers' list of refs is a pickle, which can execute code and is not read; the error message explains how to
convert it to JSON if you trust it. A sample is a ref: its photograph, all of its phrases, of which a loader draws one,
and the box and segment (polygons or runs) of its object, which pycocotools rasterises: `pip install
'maskstream[coco]'`. The label is the object's category. The splits are the ones in the list: train, val, test, testA,
testB.
"""

from pathlib import Path

from maskstream.preprocess.encode.image_text.encoder import SEGMENT, ImageTextEncoder, mask_module
from maskstream.preprocess.raw.lists import read_json
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .dataset import Dataset, dataset_of, require_folder

NAME = "refcoco"
IMAGES = ("train2014", "images/mscoco/images/train2014")
CONVERT = "python -c \"import json, pickle; json.dump(pickle.load(open('refs(unc).p', 'rb')), open('refs.json', 'w'))\""
OBTAIN = (
    f"If you trust the list of refs, convert it to JSON with {CONVERT}, and arrange the data as ROOT/refs.json, "
    "ROOT/instances.json and ROOT/train2014/COCO_train2014_*.jpg"
)


def refcoco(root: Path) -> Dataset:
    """Read RefCOCO, RefCOCO+ or RefCOCOg: phrases that refer to an object in a photograph.

    Args:
        root: Folder of the raw data.

    Raises:
        DatasetError: The folder has another layout, or pycocotools is not installed.
    """
    mask_module()
    require_folder(root, name=NAME, obtain=OBTAIN)
    path, instances = root / "refs.json", root / "instances.json"
    if not path.is_file():
        pickles = ", ".join(sorted(one.name for one in root.glob("refs(*).p")))
        found = f"only {pickles}, a pickle, which can execute code. " if pickles else ""
        raise DatasetError(f"{NAME}: {path} does not exist; {found}{OBTAIN}")
    if not instances.is_file():
        raise DatasetError(f"{NAME}: {instances} does not exist. {OBTAIN}")
    folder = next((root / one for one in IMAGES if (root / one).is_dir()), root / IMAGES[0])
    listed, refs = read_json(instances, OBTAIN), read_json(path, OBTAIN)
    try:
        images = {int(one["id"]): str(one["file_name"]) for one in listed["images"]}
        places = {
            int(one["id"]): ([float(v) for v in one["bbox"]], one["segmentation"]) for one in listed["annotations"]
        }
        names = {int(one["id"]): str(one["name"]) for one in listed["categories"]}
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{NAME}: {instances} lacks COCO's images, annotations or categories ({error!r}). {OBTAIN}"
        ) from error
    label_names = tuple(names[number] for number in sorted(names))
    splits: dict[str, list[Source]] = {}
    for number, ref in enumerate(refs if isinstance(refs, list) else [None]):
        try:
            phrases = [str(one["sent"]) for one in ref["sentences"]]
            box, segment = places[int(ref["ann_id"])]
            if not phrases or len(box) != 4:
                raise ValueError(f"{len(phrases)} sentences and a box of {len(box)} numbers")
            category = names[int(ref["category_id"])]
            boxes, segments = [box] * len(phrases), [segment] * len(phrases)
            source = Source(
                id=f"ref-{int(ref['ref_id'])}",
                path=folder / images[int(ref["image_id"])],
                label=label_names.index(category),
                meta={"phrase": phrases, "box": boxes, SEGMENT: segments, "category": category},
            )
            splits.setdefault(str(ref["split"]), []).append(source)
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{NAME}: {path}, entry {number} is not a ref of {instances.name} with ref_id, ann_id, image_id, "
                f"category_id, split and sentences ({error!r}). {OBTAIN}"
            ) from error
    return dataset_of(NAME, label_names, splits, root=root, obtain=OBTAIN, encoder=ImageTextEncoder())
