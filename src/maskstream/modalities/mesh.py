"""Meshes: simulations, and surfaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..modality import Modality
from ..pipelines.masks import TokenGrid
from ..pipelines.modalities.mesh.loader import mesh_loader
from ..preprocess.encode.mesh.encoder import MeshEncoder
from ..trial import MaskArgument, Trial


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshTrial(Trial):
    """Meshes, of which masks hide nodes."""

    masks: ClassVar[tuple[MaskArgument, ...]] = (
        MaskArgument(
            default="mesh-mask",
            grid=TokenGrid(axes=("node",), shape=(1000,), patch=(1,)),
            cues=frozenset({"edges", "kinds"}),
        ),
    )

    def chosen(self) -> dict[str, Any]:
        """Nothing."""
        return {}


MESH = Modality(
    name="mesh",
    unit="mesh",
    units="meshes",
    kinds=("mesh",),
    encoder=MeshEncoder,
    loader=mesh_loader,
    trial=MeshTrial,
    stages={
        "read": ("Reading and normalising", "more views of a mesh share its reading, and more cores would help"),
        "convert": ("Building graphs", "more views of a mesh share its graph, and more cores would help"),
    },
)
