"""MeshGraphNets' simulations (Pfaff et al., 2021), as DeepMind publishes them or converted to HDF5.

    ROOT/train.tfrecord, valid.tfrecord, test.tfrecord
    ROOT/train.h5, valid.h5, test.h5     (or .hdf5; names may be longer, such as train_cylinder.h5)
    ROOT/meta.json                       (or any other *meta*.json)

The contents of a trajectory are described in encode/mesh/trajectories.py. The JSON is the one published with the
TFRecords: `dt` in seconds, and `features`; those with `"type": "dynamic"` are the fields. The last number of `shape` is
a field's number of channels. The optional `field_names` defines their order. For moving bodies, such as flag_simple and
deforming_plate, `world_pos` is a field. Meshes that are regenerated at each step (flag_dynamic, sphere_dynamic and the
sets with sizing) are not supported.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskstream.preprocess.encode.mesh.encoder import MeshEncoder, import_h5py
from maskstream.preprocess.encode.mesh.tfrecord import record_spans
from maskstream.preprocess.raw.lists import is_unicode, read_json
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.errors import DatasetError, OutageError

from .dataset import Dataset, describe_one_down, find_first_existing, reads_media, require_folder

OBTAIN = (
    "Get a dataset, such as cylinder_flow, with download_dataset.sh of github.com/google-deepmind/deepmind-research/"
    "tree/master/meshgraphnets, so that there are ROOT/meta.json, ROOT/train.tfrecord, valid.tfrecord and "
    "test.tfrecord (or HDF5 conversions of them, ROOT/train.h5 ...)"
)
_SPLITS = {"train": "train", "val": "val", "test": "test"}
"""Splits, and how the names of their files begin; "val" matches valid.h5."""
_MESH = ("cells", "mesh_pos", "node_type")
"""Features that must not change over time."""
_RECORDS = "tfrecord"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Meta:
    """The contents of the JSON: the time step in seconds, the fields, the number of channels of each, and the number of
    corners of a cell.
    """

    dt_s: float
    fields: tuple[str, ...]
    widths: tuple[int, ...]
    corners: int

    @property
    def facts(self) -> dict[str, Any]:
        """Facts that each trajectory stores in its sample."""
        return {"fields": list(self.fields), "widths": list(self.widths), "dt_s": self.dt_s}


@reads_media
def meshgraphnets(root: Path) -> Dataset:
    """Read MeshGraphNets' simulations as TFRecord or HDF5 files.

    Args:
        root: Folder of the raw data.

    Returns:
        The trajectories of each split.

    Raises:
        DatasetError: The folder has another layout, or the meshes change over time.
        OutageError: A file cannot be read for now.
    """
    require_folder(root, name="meshgraphnets", obtain=OBTAIN)
    path = find_first_existing(root, "meta.json", "*meta*.json")
    if path is None:
        raise DatasetError(
            f"meshgraphnets: there is no meta.json in {root}.{describe_one_down(root, 'meta.json')} {OBTAIN}"
        )
    meta = _read_meta(path)
    converted = any(find_first_existing(root, f"train*.{ending}") for ending in ("h5", "hdf5"))
    endings = ("h5", "hdf5") if converted else (_RECORDS,)
    splits = {}
    for split, name in _SPLITS.items():
        file = find_first_existing(root, *(f"{name}*.{ending}" for ending in endings))
        if file is not None:
            splits[split] = _list_trajectories(file, split, meta) if converted else _records(file, split, meta)
    if "train" not in splits:
        raise DatasetError(f"meshgraphnets: there is neither train.tfrecord nor train.h5 in {root}. {OBTAIN}")
    return Dataset(name="meshgraphnets", label_names=(), splits=splits, encoder=MeshEncoder())


def _read_meta(path: Path) -> _Meta:
    data = read_json(path, OBTAIN)
    try:
        features: dict[str, Any] = data["features"]
        dynamic = [name for name, feature in features.items() if feature["type"] == "dynamic"]
        named = [name for name in data.get("field_names", ()) if name in dynamic]
        fields = (*named, *(name for name in dynamic if name not in named))
        widths = tuple(int(features[name]["shape"][-1]) for name in fields)
        dt_s = float(data["dt"])
        changing = [name for name in _MESH if features.get(name, {}).get("type", "static") != "static"]
        corners = int(features["cells"]["shape"][-1]) if "cells" in features else 3
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise DatasetError(
            f"meshgraphnets: {path} is malformed ({type(error).__name__}: {error}); it needs `dt`, and `features` "
            f"that each have a type and a shape. {OBTAIN}"
        ) from error
    if not 0 < dt_s < math.inf:
        raise DatasetError(
            f"meshgraphnets: {path} has the `dt` {dt_s}; it must be a positive number of seconds. {OBTAIN}"
        )
    if changing:
        raise DatasetError(
            f"meshgraphnets: {' and '.join(changing)} changes over time according to {path}. Only meshes with fixed "
            "cells are supported, as in cylinder_flow, airfoil, deforming_plate, flag_simple and sphere_simple"
        )
    if bad := [name for name in fields if not is_unicode(name)]:
        raise DatasetError(f"meshgraphnets: {path} has the field name {bad[0]!a}, which is not valid Unicode")
    if not fields:
        raise DatasetError(
            f"meshgraphnets: no feature of {path} is dynamic, but at least one field is needed. {OBTAIN}"
        )
    return _Meta(dt_s=dt_s, fields=fields, widths=widths, corners=corners)


def _list_trajectories(path: Path, split: str, meta: _Meta) -> list[Source]:
    """Return a source for each group, ordered by the numbers in the groups' names."""
    try:
        with import_h5py().File(path, "r") as file:
            names = sorted(file, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
    except (DatasetError, MemoryError):
        raise
    except Exception as error:  # h5py raises many types of errors for damaged files
        raise DatasetError(f"meshgraphnets: {path} cannot be read as HDF5 ({error}). {OBTAIN}") from error
    if not names:
        raise DatasetError(f"meshgraphnets: {path} has no groups, so no trajectories. {OBTAIN}")
    return [Source(id=f"{split}/{name}", path=path, meta={"trajectory": name, **meta.facts}) for name in names]


def _records(path: Path, split: str, meta: _Meta) -> list[Source]:
    """Return a source for each record, named by its number."""
    try:
        spans = record_spans(path)
    except RejectError as error:
        raise DatasetError(f"meshgraphnets: {path} {error.reason}; download it again. {OBTAIN}") from error
    except OSError as error:
        raise OutageError(f"{path} cannot be read ({error.strerror}); run the same command again") from error
    if not spans:
        raise DatasetError(f"meshgraphnets: {path} has no records, so no trajectories. {OBTAIN}")
    facts = {**meta.facts, "corners": meta.corners}
    return [
        Source(id=f"{split}/{number}", path=path, window=span, meta={"trajectory": str(number), **facts})
        for number, span in enumerate(spans)
    ]
