"""`maskstream preview`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .terminal import Data, console


def preview(
    ctx: typer.Context,
    data: Data,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("preview.html"),
    samples: Annotated[int, typer.Option("--samples", "--clips", min=1, max=64, help="How many samples.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the order, the crops and the masks.")] = 0,
) -> None:
    """Write one self-contained page that shows samples as the training loop receives them, with the mask over them.

    Video: frames, flow, and which tokens stay visible over time. Audio: the waveform and the spectrogram, and the sound
    to be heard; with video, both over one axis of time. Points: the cloud from two angles, and the voxels. Mesh: the
    field, and the graph that is left. What the shards hold stands in their dataset.json.
    """
    from ..modalities import modality_of
    from ..pages.preview import preview as write

    modality = modality_of(data)
    page = write(modality, data, modality.shown(data, **ctx.obj), out=out, samples=samples, seed=seed)
    console.print(f"wrote {page}", highlight=False)
