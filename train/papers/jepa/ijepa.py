"""I-JEPA (Assran et al., 2023): joint-embedding prediction for images; its model is `Jepa` of model.py."""

from dataclasses import dataclass, replace

from maskstream.pipelines.augment import RandomResizedCrop
from maskstream.pipelines.masks import Padded, TargetBlocks
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.train.core.model import Grids
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.nn.media_tokens import ImagePositions, ImageTokens, TokenKind

from .model import JepaConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageJepaConfig(JepaConfig[ImageBatch]):
    """The sizes of a JEPA of image patches; for `positions` see ImagePositions."""

    positions: ImagePositions = "columns"

    def tokens(self, grids: Grids) -> TokenKind[ImageBatch]:
        """Return the patches on the grid "image"."""
        return ImageTokens(grids["image"], "pixels", self.positions)


def ijepa_base() -> Recipe[ImageBatch]:
    """I-JEPA (Assran et al., 2023, section 3 and appendix A.1) with ViT-B/16: four target blocks, each predicted
    separately from the context by a predictor of 6 blocks of width 384.

    Teacher momentum rises linearly from 0.996 to 1, weight decay from 0.04 to 0.4; 600 epochs with 15 of warm-up, 64
    ranks form a batch of 2048.

    Differences from the authors' code: contexts are padded to the longest in the batch (authors: cut to the shortest);
    blocks may touch the last row and column; warm-up starts at 0 (authors: a fifth of the peak) and the learning rate
    reaches its final value at the last step (authors: a schedule 1.25 times as long in their longest runs); no key bias
    (equal softmax); no weight decay on the mask token; bf16 where the device supports it (authors: bf16 with loss
    scaling); smooth L1 loss, as in their code (paper: squared distance).
    """
    return Recipe(
        name="ijepa-base",
        batch_size=32,
        data=ImageData(
            size=224, patch=16, mask=Padded(mask=TargetBlocks()), augment=RandomResizedCrop(scale=(0.3, 1.0))
        ),
        model=ImageJepaConfig(),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.04, last_weight_decay=0.4),
        schedule=ScheduleConfig(base_lr=1.25e-4, min_lr=1.25e-7, warmup=15 / 600, epochs=600),
    )


def ijepa_tiny() -> Recipe[ImageBatch]:
    """Scaled down to two CPU cores: 64 patches of 4 pixels, an encoder of 0.6 M parameters, 500 steps of 32 images."""
    return replace(
        ijepa_base(),
        name="ijepa-tiny",
        batch_size=32,
        data=ImageData(
            size=32, patch=4, mask=Padded(mask=TargetBlocks()), augment=RandomResizedCrop(scale=(0.3, 1.0), flip=0.5)
        ),
        model=ImageJepaConfig(
            width=128, depth=3, heads=4, predictor_width=64, predictor_depth=2, predictor_heads=4, positions="grid"
        ),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.04, last_weight_decay=0.4, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=8e-3, min_lr=8e-6, warmup=0.1, steps=500),
    )
