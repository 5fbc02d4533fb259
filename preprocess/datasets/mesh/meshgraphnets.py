"""MeshGraphNets' simulations (Pfaff et al., 2021), converted to HDF5.

    ROOT/train.h5, valid.h5, test.h5     (or .hdf5; names may be longer, such as train_cylinder.h5)
    ROOT/meta.json                       (or any other *meta*.json)

A file has one group per trajectory (see encode/mesh/trajectories.py). The JSON is that of the TFRecords: `dt` in
seconds, and `features`, of which those with `"type": "dynamic"` are the fields. The last number of `shape` is a field's
channels. `field_names`, which is optional, gives their order. Moving meshes (with a dynamic `mesh_pos` or `world_pos`:
cloth, plates) are not supported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....shards.errors import DatasetError
from ...encode.mesh.encoder import MeshEncoder
from ...encode.mesh.trajectories import h5py_module
from ...lists import read_json
from ...source import Source
from ..dataset import Dataset, first_existing, require_folder

OBTAIN = (
    "Lay the HDF5 conversion of one of MeshGraphNets' datasets, such as cylinder_flow, out as ROOT/train.h5, "
    "ROOT/valid.h5, ROOT/test.h5 and ROOT/meta.json"
)
_SPLITS = {"train": "train", "val": "val", "test": "test"}
"""Splits, and how the names of their files begin; "val" matches valid.h5."""
_MOVING = frozenset({"mesh_pos", "world_pos"})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Meta:
    """The contents of the JSON: the time step in seconds, the fields, and the number of channels of each."""

    dt_s: float
    fields: tuple[str, ...]
    widths: tuple[int, ...]


def meshgraphnets(root: Path) -> Dataset:
    """The trajectories of each split. Raises DatasetError for another layout."""
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
    data = read_json(path, OBTAIN)
    try:
        features: dict[str, Any] = data["features"]
        dynamic = [name for name, feature in features.items() if feature["type"] == "dynamic"]
        named = [name for name in data.get("field_names", ()) if name in dynamic]
        fields = (*named, *(name for name in dynamic if name not in named))
        widths = tuple(int(features[name]["shape"][-1]) for name in fields)
        dt_s = float(data["dt"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise DatasetError(
            f"meshgraphnets: {path} is not as expected ({type(error).__name__}: {error}); it needs `dt`, and "
            f"`features` with a type and a shape each. {OBTAIN}"
        ) from error
    if moving := sorted(_MOVING & set(fields)):
        raise DatasetError(
            f"meshgraphnets: {path} says that {' and '.join(moving)} changes over time; only static meshes are "
            "supported, such as those of cylinder_flow and airfoil"
        )
    if not fields:
        raise DatasetError(f"meshgraphnets: no feature of {path} is dynamic, so there is no field. {OBTAIN}")
    return _Meta(dt_s=dt_s, fields=fields, widths=widths)


def _trajectories(path: Path, split: str, meta: _Meta) -> list[Source]:
    """A source for each group, ordered by the numbers in the groups' names."""
    try:
        with h5py_module().File(path, "r") as file:
            names = sorted(file, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
    except OSError as error:
        raise DatasetError(f"meshgraphnets: {path} cannot be read as HDF5 ({error}). {OBTAIN}") from error
    if not names:
        raise DatasetError(f"meshgraphnets: {path} has no groups, so no trajectories. {OBTAIN}")
    shared = {"fields": list(meta.fields), "widths": list(meta.widths), "dt_s": meta.dt_s}
    return [Source(id=f"{split}/{name}", path=path, meta={"trajectory": name, **shared}) for name in names]
