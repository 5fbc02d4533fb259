"""The modalities: each has a file with its spec, and one line here."""

from __future__ import annotations

from pathlib import Path

from ..modality import Modality
from ..shards.errors import ShardError
from ..shards.format.dataset import read_dataset_json
from .audio import AUDIO
from .audiovisual import AUDIOVISUAL
from .image import IMAGE
from .image_text import IMAGE_TEXT
from .mesh import MESH
from .points import POINTS
from .pose import POSE
from .text import TEXT
from .trajectory import TRAJECTORY
from .video import VIDEO

MODALITIES: dict[str, Modality] = {
    one.name: one for one in (VIDEO, AUDIO, AUDIOVISUAL, POINTS, MESH, IMAGE, TEXT, POSE, IMAGE_TEXT, TRAJECTORY)
}


def modality_of(location: str | Path) -> Modality:
    """The modality of the split in the folder `location`. ShardError if there is no finished split."""
    name = str(read_dataset_json(location)["modality"])
    if name not in MODALITIES:
        raise ShardError(f"{location} holds {name} shards, which have no loader; legal are {', '.join(MODALITIES)}")
    return MODALITIES[name]


__all__ = ["MODALITIES", "Modality", "modality_of"]
