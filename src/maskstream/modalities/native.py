"""Packed rows: samples of other modalities at their own size and aspect."""

from dataclasses import dataclass
from typing import Any

from maskstream.modality import Demo, MaskField, Modality
from maskstream.pages.figures.card import label_names
from maskstream.pages.figures.packed import PackedFigures
from maskstream.pipelines.augment import Native
from maskstream.pipelines.masks import MASKS, ByEnergy, Mask
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.image.data import compute_image_grid
from maskstream.pipelines.modalities.packed.data import PackedData
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.members.image import IMAGE as KIND

from .image import IMAGE
from .video import CLIP, VIDEO


def figures(data: DataConfig[Any], manifest: Manifest) -> PackedFigures:
    """Return the figures of packed rows.

    Args:
        data: The data config.
        manifest: The split.
    """
    return PackedFigures(label_names=label_names(manifest.info))


@dataclass(frozen=True, kw_only=True, slots=True)
class NativeMask(MaskField):
    """The mask of packed rows: masks of images or clips without inputs and, for clips, `ByEnergy`."""

    def misfit(self, mask: Mask) -> str:
        """See MaskField."""
        without = mask.first if isinstance(mask, ByEnergy) else mask
        if without is None:
            return ""
        picture = MaskField.misfit(self, without)
        return picture if MaskField(grid=CLIP).misfit(without) else ""


NATIVE = Modality(
    name="native",
    of=(IMAGE.name, "image-text", VIDEO.name),
    unit="sample",
    units="samples",
    kinds=(KIND.name,),
    encoder=ImageEncoder,
    data=PackedData(native=Native(most=256), mask=MASKS["mae"](), row_tokens=256),
    masks=(NativeMask(grid=compute_image_grid(224, 16)),),
    figures=figures,
    demo=Demo(recipe="native-tiny", dataset="sample-image"),
    stages=IMAGE.stages,
)
