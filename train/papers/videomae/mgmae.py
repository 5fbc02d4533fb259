"""MGMAE (Huang et al., 2023): VideoMAE with masks that follow motion (`masks.MotionGuided`)."""

from dataclasses import replace

from maskstream.pipelines.masks import MotionGuided, PartDecoded
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.train.core.optimiser import ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .videomae import BASE, make_paper_data, tiny, videomae_small


def mgmae_small() -> Recipe[VideoBatch]:
    """MGMAE (Huang et al., 2023): motion-guided masks at 0.9.

    Four views of a sample, 200 epochs with 20 of warm-up.

    Differences from the authors' code, besides those listed for `videomae-small`: flow from the codec's motion vectors
    or DIS on the CPU (authors: RAFT-small on the GPU); frames before the base frame are warped in the right direction
    (`backwarp` is compared with `backward`); the encoder is ViT-S (authors: ViT-B).
    """
    return replace(
        videomae_small(),
        name="mgmae-small",
        batch_size=24,
        data=make_paper_data(MotionGuided(ratio=0.9), views=4),
        schedule=ScheduleConfig(base_lr=1e-3, min_lr=1e-5, warmup=0.1, epochs=200),
    )


def mgmae_base() -> Recipe[VideoBatch]:
    """`mgmae-small` with the paper's ViT-B."""
    return replace(mgmae_small(), name="mgmae-base", model=BASE)


def mgmae_tiny() -> Recipe[VideoBatch]:
    """Scaled down to two CPU cores: motion-guided masks, half of the hidden tokens decoded. `make demo` trains it."""
    return tiny(mgmae_small(), PartDecoded(mask=MotionGuided(ratio=0.75)), steps=2000)
