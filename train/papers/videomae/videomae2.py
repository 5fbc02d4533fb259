"""VideoMAE V2 (Wang et al., 2023): VideoMAE that decodes only some of the hidden tokens (`masks.Dual`)."""

from dataclasses import replace

from maskstream.pipelines.masks import Dual, Tube
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.train.core.optimiser import OptimiserConfig
from maskstream.train.core.recipe import Recipe

from .mgmae import mgmae_small
from .videomae import make_paper_data, tiny


def videomae2_small() -> Recipe[VideoBatch]:
    """VideoMAE V2 (Wang et al., 2023): tube masks for the encoder, running cells for the decoder, four views.

    Differences from the authors' code, besides those listed for `videomae-small`: gradients are clipped at 0.02 for
    ViT-S too (their script: ViT-g only); batch size and epochs follow MGMAE's code: 200 epochs of four views with 20
    epochs of warm-up, as for their ViT-B; no frame-name templates and no separate SSv2 stride.
    """
    return replace(
        mgmae_small(),
        name="videomae2-small",
        batch_size=32,
        data=make_paper_data(Dual(), views=4),
        optimiser=OptimiserConfig(max_grad_norm=0.02),
    )


def videomae2_tiny() -> Recipe[VideoBatch]:
    """Scaled down to two CPU cores."""
    return tiny(videomae2_small(), Dual(encoder=Tube(ratio=0.75)))
