"""The modalities: each has a file with its spec, and one line here."""

from maskstream.modality import Modality
from maskstream.shards.errors import ShardError
from maskstream.shards.format.manifest import SplitLocation, read_info
from maskstream.shards.named import named

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


def modality_of(location: SplitLocation, own: str | None = None) -> Modality:
    """The modality of the split in the folder `location`; ShardError if there is no finished split.

    own: package.module:name of a Modality of one's own, whose split it must be; ValueError if it is not.
    """
    name = str(read_info(location)["modality"])
    if own is not None:
        found = named(own, MODALITIES, "modality")
        if not isinstance(found, Modality) or found.name != name:
            raise ValueError(f"{own} is no Modality of {name}, which {location} holds; name one whose name that is")
        return found
    if name not in MODALITIES:
        raise ShardError(
            f"{location} holds {name} shards, which have no loader; legal are {', '.join(MODALITIES)}, and one of your "
            "own as package.module:NAME (--modality of preview and bench)"
        )
    return MODALITIES[name]


__all__ = ["MODALITIES", "Modality", "modality_of"]
