"""The page: all schemes in sections by the kind of data, and the data that is missing."""

from collections.abc import Mapping
from pathlib import Path

from maskstream.pages.figures.card import Section
from maskstream.pages.page import page, write_page

from . import audio, image, laws, pairs, pose, solids, text, video
from .scheme import Media

KINDS = (video.KIND, image.KIND, audio.KIND, solids.KIND, pose.KIND, text.KIND, pairs.KIND, laws.KIND)
MISSING = "These media could not be downloaded. Run the command again with a network connection."


def list_gallery_sections(media: Media, seed: int = 0) -> list[Section]:
    """The sections with their cards."""
    return [kind.section(media, seed) for kind in KINDS]


def gallery_page(media: Media, *, missing: Mapping[str, str] | None = None, seed: int = 0) -> str:
    """One self-contained HTML file with a picture of every scheme on `media`, as a loader with `seed` draws it.

    missing: for each name of Media without data, why there is none.
    """
    sections = list_gallery_sections(media, seed)
    n = sum(len(section.cards) for section in sections)
    if missing:
        sections.append(Section(title="Missing media", words=MISSING, numbers=tuple(missing.items())))
    return page(
        kind="gallery",
        title="Masks of the papers",
        lede=(
            f"{n} masking schemes and laws on real data, each drawn as the loader draws it. A scheme is a pattern, "
            "which says where tokens are hidden, with a law, which says how many."
        ),
        facts={},
        sections=sections,
        by_section=True,
    )


def gallery(media: Media, out: str | Path, *, missing: Mapping[str, str] | None = None, seed: int = 0) -> Path:
    """Writes `gallery_page` to `out` and returns it."""
    return write_page(gallery_page(media, missing=missing, seed=seed), Path(out))
