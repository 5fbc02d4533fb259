"""`maskstream preview`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .data_options import Component, Frames, Masks, Own, Set, Size, Stride, Views, settings
from .terminal import Data, say


def preview(
    data: Data,
    set_: Set = None,
    mask: Masks = None,
    component: Component = None,
    views: Views = None,
    size: Size = None,
    frames: Frames = None,
    stride: Stride = None,
    own: Own = None,
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
    from maskstream.modalities import modality_of
    from maskstream.pages.preview import preview as write
    from maskstream.shards.format.manifest import Manifest

    manifest = Manifest.load(data)
    modality = modality_of(manifest, own)
    chosen = settings(set_, component=component, views=views, size=size, frames=frames, stride=stride)
    page = write(modality, manifest, modality.shown(manifest, chosen, mask or ()), out=out, samples=samples, seed=seed)
    say(f"wrote {page}")
