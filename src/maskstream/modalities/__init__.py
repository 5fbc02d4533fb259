"""The modalities: each has a file with its spec, and one line here."""

from typing import Any

from maskstream.modality import Modality
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.shards.errors import ShardError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.named import named

from .audio import AUDIO
from .audiovisual import AUDIOVISUAL
from .image import IMAGE
from .image_text import IMAGE_TEXT
from .mesh import MESH
from .native import NATIVE
from .points import POINTS
from .pose import POSE
from .text import TEXT
from .trajectory import TRAJECTORY
from .video import VIDEO

MODALITIES: dict[str, Modality] = {
    one.name: one for one in (VIDEO, AUDIO, AUDIOVISUAL, POINTS, MESH, IMAGE, TEXT, POSE, IMAGE_TEXT, TRAJECTORY)
}

WAYS: dict[str, Modality] = {one.name: one for one in (NATIVE,)}
"""Other ways to load splits of these modalities."""


def modality_of(manifest: Manifest, own: str | None = None, *, data: DataConfig[Any] | None = None) -> Modality:
    """Return the modality of a split.

    Args:
        manifest: The split.
        own: Name of a modality, or package.module:name of a custom `Modality`, that must match the split.
        data: Data config in use, such as a recipe's, which may select a special way to load the split.

    Raises:
        ValueError: `own` does not match the split.
        ShardError: The split's modality has no loader.
    """
    name = str(manifest.info["modality"])
    if own is not None:
        found = named(own, MODALITIES | WAYS, "modality")
        if not isinstance(found, Modality) or name not in (found.of or (found.name,)):
            raise ValueError(
                f"{own} is not a Modality of {name}, which {manifest} contains; pass a Modality with that name"
            )
        return found
    for way in WAYS.values():
        if data is not None and isinstance(data, type(way.data)):
            return way
    if name not in MODALITIES:
        raise ShardError(
            f"{manifest} contains {name} shards, which have no loader; choose from {', '.join(MODALITIES)}, or a "
            "custom one as package.module:NAME (--modality of preview and bench)"
        )
    return MODALITIES[name]


__all__ = ["MODALITIES", "WAYS", "Modality", "modality_of"]
