"""The page: all schemes in sections by the kind of data, and the data that is missing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..page import environment, render, write_page
from . import audio, image, laws, pairs, pose, solids, text, video
from .media import Media

KINDS = (video, image, audio, solids, pose, text, pairs, laws)


def gallery_page(media: Media, *, missing: Mapping[str, str] | None = None, seed: int = 0) -> str:
    """One HTML file, complete in itself, with a picture of every scheme on `media`.

    `missing` says why a name of Media has no data. Pictures are those that a loader with `seed` draws.
    """
    sections = [kind.section(media, seed) for kind in KINDS]
    n = sum(len(section.cards) for section in sections)
    return render(
        environment(__package__),
        "gallery.html.j2",
        title="Masks of the papers",
        facts={},
        sections=sections,
        n_schemes=n,
        missing=dict(missing or {}),
    )


def gallery(media: Media, out: str | Path, *, missing: Mapping[str, str] | None = None, seed: int = 0) -> Path:
    """Writes `gallery_page` to `out`; returns it."""
    return write_page(gallery_page(media, missing=missing, seed=seed), Path(out))
