"""`maskstream preview`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .terminal import Data, console
from .trial_options import AudioMask, Frames, Mask, MaskRatio, Points, Resolution, Size, SoundSeconds, Stride, Views


def preview(
    data: Data,
    mask: Mask = None,
    audio_mask: AudioMask = None,
    ratio: MaskRatio = None,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("preview.html"),
    samples: Annotated[int, typer.Option("--samples", "--clips", min=1, max=64, help="How many samples.")] = 8,
    views: Views = None,
    frames: Frames = None,
    stride: Stride = None,
    size: Size = None,
    sound_seconds: SoundSeconds = None,
    points: Points = None,
    resolution: Resolution = None,
    seed: Annotated[int, typer.Option(help="Of the order, the crops and the masks.")] = 0,
) -> None:
    """Write one self-contained page that shows samples as the training loop receives them, with the mask over them.

    Video: frames, flow, and which tokens stay visible over time. Audio: the waveform and the spectrogram, and the sound
    to be heard; with video, both over one axis of time. Points: the cloud from two angles, and the voxels. Mesh: the
    field, and the graph that is left. What the shards hold stands in their dataset.json.
    """
    from ..pages.preview import preview as write
    from ..trial import loader_settings, modality_of

    settings = loader_settings(
        modality_of(data),
        mask=mask,
        audio_mask=audio_mask,
        ratio=ratio,
        views=views,
        frames=frames,
        stride=stride,
        size=size,
        sound_seconds=sound_seconds,
        points=points,
        resolution=resolution,
    )
    console.print(f"wrote {write(data, out=out, samples=samples, seed=seed, **settings)}", highlight=False)
