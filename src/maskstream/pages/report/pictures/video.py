"""A report's pictures of video: reconstructions, and the same clips with their masks and their motion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from ....pipelines.augment import CenterCrop
from ....pipelines.modalities.split import Split
from ....pipelines.modalities.video.batch import VideoBatch
from ....pipelines.modalities.video.data import VideoData
from ....pipelines.modalities.video.loader import video_sampler, video_source
from ....pipelines.stream.loader import Loader
from ....shards.format.manifest import Manifest
from ....train.models.masked_autoencoder import MaskedAutoencoder
from ...figures.pictures import Grid, UInt8
from ...figures.video import VideoFigures, picture_side
from .pictures import Pictures
from .video_reconstruction import reconstruct, reconstruction_views


def report_pictures(config: VideoData, model: nn.Module, data: str | Path, shown: int) -> Pictures:
    """The recipe's masks on central crops of a mixed choice of the split's samples, the same each time."""
    if not isinstance(model, MaskedAutoencoder):
        raise ValueError(f"clips are reconstructed by a MaskedAutoencoder, got {type(model).__name__}")
    split = Split.open(data, "video", device="cpu")
    sampler = video_sampler(
        split,
        clip=config.clip,
        mask=config.mask,
        augment=CenterCrop(),
        flow=config.flow if config.mask is not None and "flow" in config.mask.needs else "dis",
        tubelet=config.tubelet,
        patch=config.patch,
    )
    source = video_source(split, sampler)
    batch = next(iter(Loader(source, batch_size=shown, device="cpu", rank=0, world_size=1, steps=1)))
    made, loss = reconstruct(model, batch)
    names = tuple(map(str, Manifest.load(data).info.get("label_names", ())))
    facts = {
        "clip": f"{config.clip.frames} frames, stride {config.clip.stride}, {config.clip.size} px",
        "loss on these clips": f"{loss:.3f}" + ("" if loss < 1 else ": what was learned does not carry over to them"),
        "flow": str(sampler.flow),
        "mask": repr(config.mask),
    }
    return video_pictures([batch], [made], facts, grid=sampler.grid, label_names=names)


def video_pictures(
    batches: Sequence[VideoBatch],
    reconstructions: Sequence[UInt8],
    facts: dict[str, str],
    *,
    grid: Grid,
    label_names: Sequence[str] = (),
) -> Pictures:
    """The pictures of `batches`, clips with masks over `grid`.

    reconstructions: for each batch uint8 (B, T, H, W, 3), the clips with the model's predictions in place of the target
    tokens. Raises ValueError where the arrays do not fit together.
    """
    if len(batches) != len(reconstructions):
        raise ValueError(f"got {len(batches)} batches and {len(reconstructions)} reconstructions; each batch needs one")
    frames = sum(len(batch) * batch.video.shape[1] for batch in batches)
    side = picture_side(frames)
    figures = VideoFigures(grid=grid, label_names=label_names)
    cards = [figures.sample(batch, i) for batch in batches for i in range(len(batch))]
    pairs = zip(batches, reconstructions, strict=True)
    made = [view for batch, pictures in pairs for view in reconstruction_views(batch, pictures, grid, side)]
    context = {"cards": cards, "reconstructions": made}
    return Pictures(template="video.html.j2", context=context, facts=facts)
