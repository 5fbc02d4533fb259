"""Meshes: simulations, and surfaces."""

from typing import Any

from maskstream.modality import Demo, MaskField, Modality
from maskstream.pages.figures.card import label_names
from maskstream.pages.figures.mesh import MeshFigures
from maskstream.pipelines.masks import MASKS, TokenGrid
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.mesh.data import MeshData
from maskstream.preprocess.encode.mesh.encoder import MeshEncoder
from maskstream.shards.format.manifest import Manifest
from maskstream.train.papers.meshmask.evaluate import open_reader


def figures(data: DataConfig[Any], manifest: Manifest) -> MeshFigures:
    """Return the figures of meshes.

    Args:
        data: The data config.
        manifest: The split.
    """
    reader = open_reader(manifest, data.component if isinstance(data, MeshData) else None)
    return MeshFigures(reader=reader, label_names=label_names(reader.manifest.info))


MESH = Modality(
    name="mesh",
    unit="mesh",
    units="meshes",
    kinds=("mesh",),
    encoder=MeshEncoder,
    data=MeshData(mask=MASKS["mesh-mask"]()),
    masks=(MaskField(grid=TokenGrid(axes=("node",), shape=(1000,), patch=(1,)), cues=frozenset({"edges", "kinds"})),),
    figures=figures,
    demo=Demo(
        recipe="meshmask-tiny",
        # fine-tunes the pre-trained model, then trains one without pre-training, with as many steps in total
        more=(
            "train meshmask-tiny-next --data {data}/train --out {run}/pre-trained --initial {run}/model.safetensors "
            "--steps 600",
            "train meshmask-tiny-next --data {data}/train --out {run}/same-total --steps 1200",
            "paper meshmask {run}/pre-trained {run}/same-total --data {data}/val --out {run}/rollout.html",
        ),
    ),
    stages={
        "read": ("Reading and normalising", "more views of a mesh share its reading, and more cores would help"),
        "convert": ("Building graphs", "more views of a mesh share its graph, and more cores would help"),
    },
)
