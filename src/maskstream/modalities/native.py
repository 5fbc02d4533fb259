"""Packed rows: samples of other modalities at their own size and aspect."""

from typing import Any

from maskstream.modality import Demo, MaskField, Modality
from maskstream.pages.figures.card import label_names
from maskstream.pages.figures.packed import PackedFigures
from maskstream.pipelines.augment import Native
from maskstream.pipelines.masks import MASKS
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.image.data import image_grid
from maskstream.pipelines.modalities.packed.data import PackedData
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.shards.format.manifest import SplitLocation, read_info
from maskstream.shards.members.image import IMAGE as KIND

from .image import IMAGE
from .video import VIDEO


def figures(data: DataConfig[Any], location: SplitLocation) -> PackedFigures:
    """Figures of packed rows."""
    return PackedFigures(label_names=label_names(read_info(location)))


NATIVE = Modality(
    name="native",
    of=(IMAGE.name, VIDEO.name),
    unit="sample",
    units="samples",
    kinds=(KIND.name,),
    encoder=ImageEncoder,
    data=PackedData(native=Native(most=256), mask=MASKS["mae"](), row_tokens=256),
    masks=(MaskField(grid=image_grid(224, 16)),),
    figures=figures,
    demo=Demo(recipe="native-tiny", dataset="sample-image"),
    stages=IMAGE.stages,
)
