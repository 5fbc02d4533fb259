"""What pages about clips of video and their writing share: which flow is shown, and a file that is written whole."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal

from ...pipelines.masks import Mask
from ...pipelines.modalities.video.clip import VideoClip

FlowChoice = Literal["auto", "codec", "dis", "none"]


def shown_flow(mask: Mask | None, clip: VideoClip, chosen: FlowChoice = "auto") -> FlowChoice:
    """The flow that a page shows: the one that guides the mask, as `chosen`; DIS flow where the mask needs none."""
    if mask is not None and "flow" in mask.needs:
        return chosen
    return "dis" if clip.frames > 1 else "none"


def flow_words(source: Literal["codec", "dis"] | None, *, guides: bool) -> str:
    """Where the flow of a page comes from, and whether the mask follows it."""
    name = {"codec": "the codec's motion vectors", "dis": "DIS", None: "none"}[source]
    return f"{name}, guides the mask" if guides else f"{name}, shown only; the mask does not use it"


def write_page(page: str, out: Path) -> Path:
    """Writes `page` to `out` by way of a temporary file beside it, so that nobody reads half of it; returns `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(page)
        os.chmod(temporary, 0o644)
        os.replace(temporary, out)
    except BaseException:
        os.unlink(temporary)
        raise
    return out
