"""From a folder of shards to a preview: opens the loader of its modality, takes one batch, and writes the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...modality import Modality
from ...pipelines.masks import MASKS
from ...shards.format.manifest import Manifest
from ...trial import RUN_STEPS
from ..page import write_page
from .audio import audio_page
from .audiovisual import audiovisual_page
from .mesh import mesh_page
from .opened import Opened
from .points import points_page
from .video import video_page

PAGES: dict[str, Callable[[Opened], str]] = {
    "audio": audio_page,
    "audiovisual": audiovisual_page,
    "mesh": mesh_page,
    "points": points_page,
    "video": video_page,
}


def preview(
    modality: Modality, location: str | Path, *, out: str | Path, samples: int = 8, seed: int = 0, **settings: Any
) -> Path:
    """Writes the preview of the first `samples` samples of a training epoch of the split at `location` to `out`.

    settings: those of the modality's loader, such as mask=, clip= and views=; where they are not given, masks are those
    of the modality by default. Samples, crops and masks are those that a loader with this `seed`
    gives to training. The motion vectors of shards of video or DIS flow are shown as the mask gets them, DIS flow where
    it needs none. Returns `out`. Raises ValueError for settings, ShardError where the location holds no finished split.
    """
    if samples < 1:
        raise ValueError(f"samples={samples}: a preview shows 1 or more")
    manifest = Manifest.load(location)
    if len(manifest) == 0:
        raise ValueError(f"{location} has no samples to show; `maskstream inspect` says what was rejected and why")
    masks = {where.argument: MASKS[where.default]() for where in modality.trial.masks}
    settings = {**masks, "steps": RUN_STEPS, **settings}
    settings |= {k: v for k, v in modality.trial.shown(manifest, settings).items() if k not in settings}
    loader = modality.loader(
        location, batch_size=min(samples, len(manifest)), seed=seed, device="cpu", rank=0, world_size=1, **settings
    )
    opened = Opened(
        location=Path(location),
        manifest=manifest,
        loader=loader,
        batch=next(iter(loader)),
        masks={name: settings[name] for name in masks},
        views=settings.get("views", 1),
        seed=seed,
    )
    loader.close()
    return write_page(PAGES[modality.name](opened), Path(out))
