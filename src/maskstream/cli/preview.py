"""`maskstream preview`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .terminal import Data, say


def preview(
    ctx: typer.Context,
    data: Data,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("preview.html"),
    samples: Annotated[int, typer.Option("--samples", "--clips", min=1, max=64, help="Number of samples.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the order, the crops and the masks.")] = 0,
) -> None:
    """Write one self-contained HTML page of samples as the training loop receives them, with their masks.

    Video: frames, flow, and which tokens stay visible over time. Audio: waveform and spectrogram, with a player; with
    video, both over one time axis. Image: the picture, and its visible tokens. Points: the cloud from two angles, and
    its voxels. Mesh: the field, and the visible part of the graph. The modality is that of the shards, as in their
    dataset.json.
    """
    from ..modalities import modality_of
    from ..pages.preview import preview as write

    modality = modality_of(data)
    page = write(modality, data, modality.shown(data, **ctx.obj), out=out, samples=samples, seed=seed)
    say(f"wrote {page}")
