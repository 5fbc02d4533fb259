"""What the commands `preview` and `bench` let one choose of a loader; None is what suits the shards."""

from __future__ import annotations

from typing import Annotated

import typer

Mask = Annotated[
    str | None,
    typer.Option(
        help="A mask by its name, or none; of video with sound, that of the frames. One that does not fit lists those "
        "that do. [default: motion-guided for video, audio-mae for audio, random for video with sound, fastdit-3d for "
        "points, mesh-mask for mesh]",
        show_default=False,
    ),
]
AudioMask = Annotated[
    str | None, typer.Option(help="Of video with sound, that of the sound [default: audio-mae]", show_default=False)
]
MaskRatio = Annotated[
    float | None, typer.Option("--ratio", help="Hidden share [default: the mask's own]", show_default=False)
]
Views = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Views of each sample, each with a crop, a mask or a step of its own [default: 1]",
        show_default=False,
    ),
]
_VIDEO, _SOUND, _POINTS = "Video, also with sound", "Audio, also with video", "Points"
Frames = Annotated[
    int | None,
    typer.Option(
        min=2, help="Frames of a clip, an even number [default: 16]", show_default=False, rich_help_panel=_VIDEO
    ),
]
Stride = Annotated[
    int | None,
    typer.Option(min=1, help="Frames from one to the next [default: 4]", show_default=False, rich_help_panel=_VIDEO),
]
Size = Annotated[
    int | None,
    typer.Option(
        min=16, help="Pixels of a side, a multiple of 16 [default: 224]", show_default=False, rich_help_panel=_VIDEO
    ),
]
SoundSeconds = Annotated[
    float | None,
    typer.Option(
        min=0.16,
        help="Seconds of sound, a multiple of 0.16 [default: 10.24; of a preview at most so much, as the shards have]",
        show_default=False,
        rich_help_panel=_SOUND,
    ),
]
Points = Annotated[
    int | None,
    typer.Option(min=1, help="Points of a cloud [default: 2048]", show_default=False, rich_help_panel=_POINTS),
]
Resolution = Annotated[
    int | None,
    typer.Option(
        min=4, help="Voxels along an edge, a multiple of 4 [default: 32]", show_default=False, rich_help_panel=_POINTS
    ),
]
