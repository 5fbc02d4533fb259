"""From a folder of shards to a preview: opens the loader of its modality, takes one batch, and writes the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...pipelines.modalities.audio.clip import AudioClip
from ...pipelines.modalities.video.clip import VideoClip
from ...shards.format.manifest import Manifest
from ...trial import RUN_STEPS, Modality, default_masks, modality_of
from ..page import write_page
from .audio import audio_page, usual_seconds
from .audiovisual import audiovisual_page, sound_seconds
from .build import shown_flow
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


def preview(location: str | Path, *, out: str | Path, samples: int = 8, seed: int = 0, **settings: Any) -> Path:
    """Writes the preview of the first `samples` samples of a training epoch of the split at `location` to `out`.

    settings: those of the loader of the split's modality, such as mask=, clip= and views=; its masks are those of
    `trial.default_masks` where they are not given. Samples, crops and masks are those that a loader with this `seed`
    gives to training. The motion vectors of shards of video or DIS flow are shown as the mask gets them, DIS flow where
    it needs none. Returns `out`. Raises ValueError for settings, ShardError where the location holds no finished split.
    """
    if samples < 1:
        raise ValueError(f"samples={samples}: a preview shows 1 or more")
    modality, manifest = modality_of(location), Manifest.load(location)
    if len(manifest) == 0:
        raise ValueError(f"{location} has no samples to show; `maskstream inspect` says what was rejected and why")
    settings = _completed(modality, manifest, settings)
    loader = modality.loader(
        location, batch_size=min(samples, len(manifest)), seed=seed, device="cpu", rank=0, world_size=1, **settings
    )
    opened = Opened(
        location=Path(location),
        manifest=manifest,
        loader=loader,
        batch=next(iter(loader)),
        masks={where.argument: settings[where.argument] for where in modality.masks},
        views=settings.get("views", 1),
        seed=seed,
    )
    loader.close()
    return write_page(PAGES[modality.name](opened), Path(out))


def _completed(modality: Modality, manifest: Manifest, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with those that a page wants where they were left out."""
    settings = {**default_masks(modality), "steps": RUN_STEPS, **settings}
    clip = settings.get("clip") or VideoClip()
    if modality.name == "audio":
        settings.setdefault("clip", AudioClip(seconds=usual_seconds(manifest)))
    if modality.name == "video":
        settings.setdefault("flow", shown_flow(settings["mask"], clip))
    if modality.name == "audiovisual":
        settings.setdefault("seconds", sound_seconds(manifest, clip))
    return settings
