"""From a folder of shards to a preview: opens a loader, takes one batch and writes the page."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal

from ...shards.manifest import Manifest
from ..masks import Mask
from ..video.clip import VideoClip
from .page import preview_page

FlowChoice = Literal["auto", "codec", "dis", "none"]


def preview(
    location: str | Path,
    *,
    mask: Mask | None,
    out: str | Path,
    clips: int = 8,
    clip: VideoClip | None = None,
    seed: int = 0,
) -> Path:
    """Writes the preview of the first `clips` clips of a training epoch of the split at `location` to `out`.

    The clips, crops and masks are those that a loader with this `seed` gives to training. The motion vectors of the
    shards or DIS flow are shown as the mask gets them, DIS flow where it needs none. Returns `out`. Raises ValueError
    for settings, ShardError where the location holds no finished split.
    """
    from ..video.loader import video_loader

    clip = clip or VideoClip()
    if clips < 1:
        raise ValueError(f"clips={clips}: a preview shows 1 or more")
    manifest = Manifest.load(location)
    if len(manifest) == 0:
        raise ValueError(f"{location} has no samples to show; `maskstream inspect` says what was rejected and why")
    loader = video_loader(
        location,
        clip=clip,
        mask=mask,
        batch_size=min(clips, len(manifest)),
        seed=seed,
        device="cpu",
        flow=shown_flow(mask, clip),
    )
    batch = next(iter(loader))
    split = f"{manifest.info['dataset']}/{manifest.info['split']}"
    facts = {
        "location": str(location),
        "samples": f"{len(manifest):,}",
        "profile": str(manifest.info["profile"]),
        "clip": f"{clip.frames} frames, stride {clip.stride}, {clip.size} px",
        "seed": str(seed),
        "flow": flow_words(loader.flow, guides=mask is not None and "flow" in mask.needs),
        "mask": repr(mask) if mask else "none",
    }
    names = tuple(map(str, manifest.info.get("label_names", ())))
    title = f"{type(mask).__name__ if mask else 'No'} mask on {split}"
    return write_page(preview_page(batch, loader.grid, title=title, facts=facts, label_names=names), Path(out))


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
