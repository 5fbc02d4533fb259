"""The gallery of chosen masks on samples of a split, followed by published masks that fit the same tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from inspect import getdoc
from pathlib import Path
from typing import Any

from maskstream.modality import NO_MASK, MaskField, Modality
from maskstream.pages.figures.card import Card, Figure, Section
from maskstream.pages.figures.figures import MaskRow, mask_facts
from maskstream.pages.page import page, write_page
from maskstream.pages.preview import first_batch
from maskstream.pipelines.masks import SCHEMES, Mask
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.shards.format.manifest import Manifest

from .scheme import CardText
from .video import paint_clip


def own_gallery(
    modality: Modality,
    manifest: Manifest,
    masks: Sequence[str],
    out: str | Path,
    *,
    settings: Sequence[str] = (),
    samples: int = 4,
    seed: int = 0,
) -> Path:
    """Write the gallery of some masks by name, on the first samples of a training epoch.

    Args:
        modality: Modality of the split.
        manifest: The split.
        masks: Names of masks, as in `Modality.chosen`.
        out: HTML file.
        settings: Settings of the data config, such as "size=112".
        samples: Number of samples.
        seed: Seed of the loader.

    Returns:
        The path of the page.

    Raises:
        ValueError: A mask does not fit, or the split has no samples.
    """
    by_field = {
        field: [one.rpartition("=")[2] for one in masks if modality.field_of(one) is field] for field in modality.masks
    }
    sections: list[Section] = []
    for field, names in by_field.items():
        if names:
            of = f" ({field.name})" if len(modality.masks) > 1 else ""
            cards = [
                card for one in names for card in _draw_cards(modality, manifest, field, one, settings, samples, seed)
            ]
            sections.append(_build_section(f"Chosen masks{of}", "On samples from your split.", cards))
            others = [name for name in field.legal() if name != NO_MASK and name not in names]
            cards = [
                card for name in others for card in _draw_cards(modality, manifest, field, name, settings, 1, seed)
            ]
            words = "Other masks that fit these tokens, on the first of these samples."
            sections.append(_build_section(f"Masks of papers{of}", words, cards))
    info = manifest.info
    text = page(
        kind="gallery",
        title=f"Masks on {info['dataset']}/{info['split']}",
        lede=f"{', '.join(masks)} on {modality.units} as a loader with the seed {seed} passes them to training.",
        facts={"location": manifest.location, "samples": f"{len(manifest):,}"},
        sections=sections,
        by_section=True,
    )
    return write_page(text, out)


def _build_section(title: str, words: str, cards: Sequence[Card]) -> Section:
    return Section(title=title, words=words, cards=tuple(cards), layout="columns")


def _draw_cards(
    modality: Modality,
    manifest: Manifest,
    field: MaskField,
    name: str,
    settings: Sequence[str],
    samples: int,
    seed: int,
) -> Iterator[Card]:
    """Yield a card of each sample with a mask."""
    asked = [f"{field.name}={name}"]
    data = modality.chosen(settings, asked)
    if not isinstance(data, VideoData):  # pages of video show flow, which does not fit on a card
        data = modality.shown(manifest, settings, asked)
    mask = getattr(data, field.name)
    batch = first_batch(data, manifest, samples, seed)
    for row in range(len(batch)):
        words = _text(name, mask)
        drawn = getattr(batch, field.name, None)  # poses have a mask for each of their parts
        facts = () if drawn is None else mask_facts(MaskRow.of(drawn, row))
        card = words.card(_draw_figures(modality, data, manifest, field, batch, row), facts)
        yield replace(card, words=f"{words.source}, on {batch.key[row]}", key=f"{card.key} {batch.key[row]}")


def _draw_figures(
    modality: Modality, data: DataConfig[Any], manifest: Manifest, field: MaskField, batch: Any, row: int
) -> tuple[Figure, ...]:
    """Draw the figures of a sample; a clip as one frame per time step."""
    drawn = getattr(batch, field.name, None)  # poses have a mask for each of their parts
    if field.grid.axes == ("t", "h", "w") and drawn is not None:
        return paint_clip(batch.video[row].numpy(), drawn.rows(slice(row, row + 1)), drawn.grid, "")
    return modality.figures(data, manifest).sample(batch, row).figures


def _text(name: str, mask: Mask | None) -> CardText:
    """Return the text of a mask's card: of its scheme, or of a custom class."""
    for scheme in SCHEMES:
        if scheme.name == name:
            return CardText.of(scheme)
    about = " ".join((getdoc(type(mask)) or "").split("\n\n")[0].split())
    return CardText(title=type(mask).__name__, source=name.partition(":")[0], note=about, call=repr(mask), name=name)
