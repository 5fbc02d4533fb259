"""The page: all schemes in sections by the kind of data, and the data that is missing."""

from collections.abc import Mapping
from pathlib import Path

from maskstream.pages.figures.card import Section
from maskstream.pages.page import page, write_page

from . import audio, image, pairs, pose, schedules, solids, text, video
from .scheme import Media

KINDS = (video.KIND, image.KIND, audio.KIND, solids.KIND, pose.KIND, text.KIND, pairs.KIND, schedules.KIND)
MISSING = "These media could not be downloaded. Run the command again with a network connection."


def list_gallery_sections(media: Media, seed: int = 0) -> list[Section]:
    """Return the sections with their cards.

    Args:
        media: The sample media.
        seed: Seed of the masks.
    """
    return [kind.section(media, seed) for kind in KINDS]


def gallery_page(media: Media, *, missing: Mapping[str, str] | None = None, seed: int = 0) -> str:
    """Return one self-contained HTML file with an image of every scheme, as drawn by a loader.

    Args:
        media: The sample media.
        missing: Reason for each missing medium, by name.
        seed: Seed of the loader.
    """
    sections = list_gallery_sections(media, seed)
    n = sum(len(section.cards) for section in sections)
    if missing:
        sections.append(Section(title="Missing media", words=MISSING, numbers=tuple(missing.items())))
    return page(
        kind="gallery",
        title="Masks of the papers",
        lede=(
            f"{n} masking schemes and ratio samplers on real data, each drawn by the loader's code. A scheme combines "
            "a pattern, which determines the hidden tokens, with a ratio sampler, which determines their number."
        ),
        facts={},
        sections=sections,
        by_section=True,
    )


def gallery(media: Media, out: str | Path, *, missing: Mapping[str, str] | None = None, seed: int = 0) -> Path:
    """Write `gallery_page` and return its path.

    Args:
        media: The sample media.
        out: HTML file.
        missing: Reason for each missing medium, by name.
        seed: Seed of the loader.
    """
    return write_page(gallery_page(media, missing=missing, seed=seed), Path(out))
