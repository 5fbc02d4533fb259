"""Energy of a clip's tokens, from data that preprocessing stored for each GOP (shards/media/gop_notes.py).

Needs neither pixels nor motion vectors: the maps are stored next to the packets that a clip reads anyway.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.masks import Mask
from maskstream.shards.arrays import Int64s
from maskstream.shards.errors import DataError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.gop_notes import ANCHOR_STRIDE, ANCHORED, CELL, GopNotes, energies_of_codes

from .clip import VideoClip, start_multiple

_ENERGIES = energies_of_codes()


def check_energy(
    mask: Mask | None, clip: VideoClip, manifest: Manifest, component: str, *, one_rate: bool = True
) -> None:
    """Raise ValueError if a mask reads stored energy that the shards do not have for such clips.

    Args:
        mask: Mask to check.
        clip: Clip settings, with `align` for the split's profile.
        manifest: Manifest of the split.
        component: Name of the video.
        one_rate: True if all cameras of a sample have the same frame rate.
    """
    if mask is None or "energy" not in mask.needs:
        return
    profile, encoder = str(manifest.info["profile"]), manifest.info["settings"].get("encoder", {})
    stored: Any = encoder.get("video", {}) if isinstance(encoder, Mapping) else {}
    if profile not in ANCHORED or not isinstance(stored, Mapping) or stored.get("energy") is not True:
        raise ValueError(
            f"{mask} follows stored energy, but {manifest.location} has none (profile {profile!r}); write the "
            "shards with `maskstream shards DATASET --set video.energy=true`, or use energy='online'"
        )
    if not one_rate or clip.short == "loop":
        reason = "VideoClip(short='loop') goes back in time" if one_rate else "the cameras of a sample have other rates"
        raise ValueError(
            f"{mask} follows stored energy, which assumes that all frames share one time base, but {reason}; use "
            "energy='online'"
        )
    told, legal = clip.spacing, f"a stride that is a multiple of {ANCHOR_STRIDE}"
    whole = not (clip.stride % ANCHOR_STRIDE or start_multiple(clip, profile) % ANCHOR_STRIDE)
    if clip.is_timed:
        video = manifest.component(component)
        rates = np.unique(video.facts["fps"][video.present].astype(np.float64))
        rates = rates[rates > 0]
        whole = all(clip.unit(rate) % ANCHOR_STRIDE == 0 for rate in rates.tolist())
        told = f"{clip.spacing}, of videos of {rates.min(initial=np.inf):g}"
        legal = f"at most {rates.min(initial=np.inf) / ANCHOR_STRIDE:g} frames a second without align"
    if not whole:
        raise ValueError(
            f"{mask} follows stored energy, which exists for every {ANCHOR_STRIDE}th frame, but a clip has "
            f"{told}, align {clip.align}; pass {legal}, or use energy='online'"
        )


def read_stored_energy(
    notes: GopNotes, frames: Int64s, crop: Crop, source: tuple[int, int], places: tuple[int, int]
) -> Int64s:
    """Return the energy of each frame at the positions of its tokens: int64 (T, h, w), in 1 / (h * w) squared levels.

    Stored cells are weighted by their overlap with a token. If frames are further apart, the energies of all anchors in
    between are added. As in `token_energy`, the first frame of a scene has the energy of the second, and a repeated
    frame has none.

    Args:
        notes: Data stored for the GOPs.
        frames: int64 (T,), multiples of ANCHOR_STRIDE.
        crop: Region shown in the clip.
        source: Width and height of the frames in pixels.
        places: Rows and columns of tokens.

    Raises:
        DataError: An anchor's energy is missing.
    """
    numbers, (width, height), (h, w) = frames.tolist(), source, places
    through = [range(before + ANCHOR_STRIDE, now + 1, ANCHOR_STRIDE) for before, now in pairwise(numbers)]
    if lost := {number for steps in through for number in steps} - notes.energy.keys():
        raise DataError(f"has no stored energy for frames {sorted(lost)[:4]}; write its shards again")
    cells = np.zeros((len(numbers), -(-height // CELL), -(-width // CELL)), dtype=np.int64)
    for at, steps in enumerate(through, start=1):
        for number in steps:
            cells[at] += _ENERGIES[notes.energy[number]]
    down = overlaps(crop.y, crop.height, h, cells.shape[1])
    across = overlaps(crop.x, crop.width, w, cells.shape[2])
    energy: Int64s = down @ cells @ across.T // CELL**2
    if crop.flip:
        energy = energy[:, :, ::-1]
    starts = [True, *(any(notes.starts.get(number, False) for number in steps) for steps in through)]
    energy = np.where(np.array(starts)[:, None, None], 0, energy)
    for at in np.flatnonzero(starts)[::-1].tolist():
        if at + 1 < len(numbers) and not starts[at + 1]:
            energy[at] = energy[at + 1]
    return energy


def overlaps(first: int, length: int, parts: int, cells: int) -> Int64s:
    """Return the overlap of each cell with each of the equal parts of [first, first + length) pixels, in 1 / parts
    pixels: int64 (parts, cells).
    """
    edges = first * parts + length * np.arange(parts + 1, dtype=np.int64)
    borders = CELL * parts * np.arange(cells + 1, dtype=np.int64)
    stops = np.minimum(edges[1:, None], borders[None, 1:])
    return np.asarray(np.maximum(stops - np.maximum(edges[:-1, None], borders[None, :-1]), 0))
