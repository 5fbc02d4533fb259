"""`maskstream flow`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .data_options import Component, Frames, Masks, Set, Size, Stride, settings
from .terminal import Data, say


def flow(
    data: Data,
    set_: Set = None,
    mask: Masks = None,
    component: Component = None,
    size: Size = None,
    frames: Frames = None,
    stride: Stride = None,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("flow.html"),
    sources: Annotated[
        str | None,
        typer.Option(
            help="The sources, separated by commas: codec, dis, lk, package.module:Name [default: all that can serve]",
            show_default=False,
        ),
    ] = None,
    raft: Annotated[
        Path | None,
        typer.Option(
            metavar="WEIGHTS", help="Show RAFT too, with this file of weights of raft_small.", show_default=False
        ),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", "--clips", min=1, max=16, help="Number of clips.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the order, the crops and the masks.")] = 0,
) -> None:
    """Write one self-contained HTML page of clips of video with every source of optical flow side by side.

    Of each source: the flow as colours, how well it explains each cell of a frame, the visible tokens that a
    motion-guided mask makes of it, and the scene cuts.
    """
    from maskstream.modalities import MODALITIES
    from maskstream.pages.flow import flow_page
    from maskstream.pipelines.flow import FlowSource, Raft
    from maskstream.pipelines.flow.choice import flow_named

    chosen: list[FlowSource] | None = None
    if sources is not None:
        named = {word: flow_named(word) for word in sources.split(",")}
        if nothing := [word for word, source in named.items() if source is None]:
            raise ValueError(f"{', '.join(nothing)} names no one source of flow; name codec, dis, lk or your own")
        chosen = [source for source in named.values() if source is not None]
    settings_ = settings(set_, component=component, size=size, frames=frames, stride=stride)
    config = MODALITIES["video"].chosen(settings_, mask or ())
    more = [] if raft is None else [Raft(weights=str(raft))]
    say(f"wrote {flow_page(data, config, out=out, sources=chosen, more=more, samples=samples, seed=seed)}")
