"""What the examples train: a small VideoMAE of transformers with random weights, and the loader for it."""

from __future__ import annotations

import torch
from transformers import VideoMAEConfig, VideoMAEForPreTraining

from maskstream.pipelines import VideoBatch, VideoClip, masks, video_loader
from maskstream.pipelines.stream.loader import Loader

FRAMES, SIDE, PATCH = 4, 32, 8


def loader_of(data: str, *, batch_size: int = 2, seed: int = 3) -> Loader[VideoBatch]:
    """The batches of this rank: rank and world size are those of torch.distributed."""
    clip, mask = VideoClip(frames=FRAMES, stride=4, size=SIDE), masks.Tube(ratio=0.75)
    return video_loader(data, clip=clip, mask=mask, patch=PATCH, batch_size=batch_size, seed=seed, device="auto")


def video_mae() -> VideoMAEForPreTraining:
    """The same weights on every rank."""
    of_both = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    decoder = {f"decoder_{name}": value for name, value in of_both.items()}
    config = VideoMAEConfig(num_frames=FRAMES, image_size=SIDE, patch_size=PATCH, tubelet_size=2, **of_both, **decoder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VideoMAEForPreTraining(config)


def loss_of(model: torch.nn.Module, batch: VideoBatch) -> torch.Tensor:
    """A scalar; the batch is what the model takes."""
    loss: torch.Tensor = model(batch.pixel_values(), bool_masked_pos=batch.mask.masked).loss
    return loss
