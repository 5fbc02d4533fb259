"""MeshGraphNets' simulations (Pfaff et al., 2021) as HDF5, the form in which their conversions are published.

    ROOT/train.h5, valid.h5, test.h5     (also .hdf5; names may go on, as in train_cylinder.h5)
    ROOT/meta.json                       (also any other *meta*.json)

A file has one group per trajectory (see encode/trajectories.py). The JSON is that of the TFRecords: `dt` in seconds,
and `features`, where those with `"type": "dynamic"` are the fields; `shape` ends in a field's channels; `field_names`,
where it is there, gives their order. Meshes that move (a dynamic `mesh_pos` or `world_pos`: cloth, plates) are not
taken.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....shards.errors import DatasetError
from ...encode.mesh.encoder import MeshEncoder
from ...encode.mesh.trajectories import h5py_module
from ...source import Source
from ..dataset import Dataset, first_existing, require_folder

OBTAIN = (
    "Lay the HDF5 conversion of one of MeshGraphNets' datasets, such as cylinder_flow, out as ROOT/train.h5, "
    "ROOT/valid.h5, ROOT/test.h5 and ROOT/meta.json"
)
_SPLITS = {"train": "train", "val": "val", "test": "test"}
"""A file of a split begins with its value: valid.h5 too is that of val."""
_MOVING = frozenset({"mesh_pos", "world_pos"})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Meta:
    """What the JSON says: seconds of a step, the fields and how many channels each has."""

    dt_s: float
    fields: tuple[str, ...]
    widths: tuple[int, ...]


def meshgraphnets(root: Path) -> Dataset:
    """The trajectories of each split; DatasetError where the files are not as above."""
    require_folder(root, name="meshgraphnets", obtain=OBTAIN)
    path = first_existing(root, "meta.json", "*meta*.json")
    if path is None:
        raise DatasetError(f"meshgraphnets: there is no meta.json in {root}. {OBTAIN}")
    meta = _read_meta(path)
    splits = {}
    for split, name in _SPLITS.items():
        file = first_existing(root, *(f"{name}*.{ending}" for ending in ("h5", "hdf5")))
        if file is not None:
            splits[split] = _trajectories(file, split, meta)
    if "train" not in splits:
        raise DatasetError(f"meshgraphnets: there is no train.h5 in {root}. {OBTAIN}")
    return Dataset(name="meshgraphnets", label_names=(), splits=splits, encoder=MeshEncoder())


def _read_meta(path: Path) -> _Meta:
    try:
        data = json.loads(path.read_bytes())
        features: dict[str, Any] = data["features"]
        dynamic = [name for name, feature in features.items() if feature["type"] == "dynamic"]
        named = [name for name in data.get("field_names", ()) if name in dynamic]
        fields = (*named, *(name for name in dynamic if name not in named))
        widths = tuple(int(features[name]["shape"][-1]) for name in fields)
        dt_s = float(data["dt"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DatasetError(
            f"meshgraphnets: {path} is not as expected ({type(error).__name__}: {error}); it has `dt`, and `features` "
            f"with a type and a shape each. {OBTAIN}"
        ) from error
    if moving := sorted(_MOVING & set(fields)):
        raise DatasetError(
            f"meshgraphnets: by {path} {' and '.join(moving)} changes over time; only meshes that rest are taken, such "
            "as cylinder_flow's and airfoil's"
        )
    if not fields:
        raise DatasetError(f"meshgraphnets: no feature of {path} is dynamic, so there is no field. {OBTAIN}")
    return _Meta(dt_s=dt_s, fields=fields, widths=widths)


def _trajectories(path: Path, split: str, meta: _Meta) -> list[Source]:
    """A source for each group, in the order of the numbers in their names."""
    try:
        with h5py_module().File(path, "r") as file:
            names = sorted(file, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
    except OSError as error:
        raise DatasetError(f"meshgraphnets: {path} cannot be read as HDF5 ({error}). {OBTAIN}") from error
    if not names:
        raise DatasetError(f"meshgraphnets: {path} has no groups, so no trajectories. {OBTAIN}")
    said = {"fields": list(meta.fields), "widths": list(meta.widths), "dt_s": meta.dt_s}
    return [Source(id=f"{split}/{name}", path=path, meta={"trajectory": name, **said}) for name in names]
