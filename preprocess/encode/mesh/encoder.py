"""The encoder of meshes: surfaces from files, simulations from TFRecord, HDF5 or a solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from maskstream.preprocess.encode.encoder import Encoded, made_of
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.config import Config
from maskstream.shards.media.mesh_members import FIELDS, MESH
from maskstream.shards.members.array import array_member
from maskstream.shards.members.mesh import mesh_member

from .surfaces import Surface, read_surface
from .trajectories import NORMAL, OUTFLOW, Simulation, read_record, read_trajectory

TRAJECTORY_SUFFIXES = frozenset({".h5", ".hdf5"})
RECORD_SUFFIX = ".tfrecord"


@dataclass(frozen=True, slots=True)
class MeshEncoder(Config):
    """Encodes surfaces and simulations.

    `made_by` of a source makes a `Simulation`. For an HDF5 file, meta gives `trajectory`,
    `fields`, `widths` and `dt_s`; for a TFRecord file also `corners`, and `window` is in bytes. Every other file is a
    surface. The `sums` serve to normalise: `edges` holds the count
    and the summed lengths; for simulations, `fields` (all nodes and steps) and `changes` (between steps, at normal and
    outflow nodes) each hold the count, the sums of the D channels and the sums of their squares.
    """

    modality: ClassVar[str] = "mesh"

    @property
    def profile(self) -> str:
        """The only profile: mesh."""
        return "mesh"

    def encode(self, source: Source) -> Encoded:
        """Encode a surface or a simulation."""
        computed = made_of(source, Simulation)
        if computed is not None:
            return encoded_simulation(computed)
        meta, suffix = source.meta, source.path.suffix.lower()
        if suffix in TRAJECTORY_SUFFIXES | {RECORD_SUFFIX}:
            name, fields, widths, dt_s = (meta[key] for key in ("trajectory", "fields", "widths", "dt_s"))
            if suffix == RECORD_SUFFIX and source.window is not None:
                return encoded_simulation(
                    read_record(source.path, source.window, meta["corners"], fields, widths, dt_s)
                )
            return encoded_simulation(read_trajectory(source.path, name, fields, widths, dt_s))
        return encoded_surface(read_surface(source.path))


def encoded_surface(surface: Surface) -> Encoded:
    """Encode a surface."""
    facts = {"n_nodes": len(surface.vertices), "n_cells": len(surface.faces)}
    return Encoded(
        members={MESH: mesh_member(facts, vertices=surface.vertices, faces=surface.faces)},
        meta={**facts, "n_merged": surface.n_merged},
        sums={"edges": _edge_sums(surface.vertices, surface.faces)},
    )


def encoded_simulation(simulation: Simulation) -> Encoded:
    """Encode a simulation. Raises RejectError if it has no node to predict."""
    fields = simulation.fields
    predicted = np.isin(simulation.node_type, (NORMAL, OUTFLOW))
    if not predicted.any():
        raise RejectError("decode", "has no node of type normal or outflow, so there is nothing to predict")
    facts = {"n_nodes": fields.shape[1], "n_cells": len(simulation.cells)}
    mesh = mesh_member(facts, positions=simulation.positions, cells=simulation.cells, node_type=simulation.node_type)
    return Encoded(
        members={MESH: mesh, FIELDS: array_member(fields.astype("<f4", copy=False))},
        meta={
            **facts,
            "n_steps": len(fields),
            "field_names": list(simulation.field_names),
            "dt_s": simulation.dt_s,
        },
        sums={
            "edges": _edge_sums(simulation.positions, simulation.cells),
            "fields": _moments(fields),
            "changes": _moments(np.diff(fields[:, predicted].astype(np.float64), axis=0)),
        },
    )


def _moments(values: npt.NDArray[np.floating[Any]]) -> list[float]:
    """The count per channel of values (..., D), the sums of the channels and the sums of their squares."""
    flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
    return [float(len(flat)), *flat.sum(axis=0).tolist(), *np.square(flat).sum(axis=0).tolist()]


def _edge_sums(places: npt.NDArray[np.float32], cells: npt.NDArray[np.int32]) -> list[float]:
    """The number of edges, counting shared ones twice, and the sum of their lengths."""
    corners = places[cells].astype(np.float64)
    pairs = [(i, j) for i in range(cells.shape[1]) for j in range(i)]
    lengths = [np.sqrt(np.square(corners[:, i] - corners[:, j]).sum(axis=1)).sum() for i, j in pairs]
    return [float(len(cells) * len(pairs)), float(np.sum(lengths))]
