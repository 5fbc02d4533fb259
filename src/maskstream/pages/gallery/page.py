"""The page: all schemes in sections by the kind of data, and the data that is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from maskstream.pages.figures.card import Section
from maskstream.pages.page import page, write_page

from . import audio, image, laws, pairs, pose, solids, text, video
from .doc_pictures import doc_pictures, write_pictures
from .scheme import Media

KINDS = (video, image, audio, solids, pose, text, pairs, laws)
MISSING = "These media could not be downloaded. Run the command again with a network connection."


def gallery_page(media: Media, *, missing: Mapping[str, str] | None = None, seed: int = 0) -> str:
    """One self-contained HTML file with a picture of every scheme on `media`, as a loader with `seed` draws it.

    missing: for each name of Media without data, why there is none.
    """
    return _page(gallery_sections(media, seed), missing)


def gallery_sections(media: Media, seed: int = 0) -> list[Section]:
    """The sections with their cards."""
    return [replace(kind.section(media, seed), layout="columns") for kind in KINDS]


def _page(sections: Sequence[Section], missing: Mapping[str, str] | None) -> str:
    sections = list(sections)
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


def gallery(
    media: Media,
    out: str | Path,
    *,
    missing: Mapping[str, str] | None = None,
    seed: int = 0,
    pictures: Path | None = None,
) -> Path:
    """Writes `gallery_page` to `out`, and into the folder `pictures` the pictures of the docs; returns `out`."""
    sections = gallery_sections(media, seed)
    if pictures is not None:
        write_pictures(doc_pictures(media, sections, seed), pictures)
    return write_page(_page(sections, missing), Path(out))
