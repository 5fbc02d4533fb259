"""Cards of the gallery: what a scheme's file declares, drawn on real data of its axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...pipelines.masks import SCHEMES, Cues, Draw, Mask, Scheme, TokenGrid
from ...pipelines.masks.core.batch import MaskBatch
from ...pipelines.masks.core.scheme import Shot
from ...pipelines.stream.place import Place
from ..figures.card import Figure

Drawn = tuple[Shot, MaskBatch]
Paint = Callable[[Sequence[Drawn], TokenGrid], tuple[Figure, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """The words of a card: source, the paper and the section; note, a sentence; call, how a user builds what is drawn,
    after `from maskstream.pipelines import masks`; name, what the command line calls it, empty where it has no name."""

    title: str
    source: str
    note: str
    call: str
    name: str = ""

    @classmethod
    def of(cls, scheme: Scheme) -> Entry:
        """The words of a scheme, as its pattern's file declares them."""
        note = scheme.note.replace("`", "")
        return cls(title=scheme.title, source=scheme.source, note=note, call=scheme.call, name=scheme.name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Real data, with the grid of its tokens, its cues, and a function that paints masks on it.

    cues: those of view v are cues[v % len(cues)].
    """

    grid: TokenGrid
    paint: Paint
    cues: tuple[Cues, ...] = (Cues(),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A card of the page. counts: what is hidden, in words."""

    entry: Entry
    panels: tuple[Figure, ...]
    counts: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """The cards of one kind of data and a sentence about it. missing: the data that there is none of, in words."""

    title: str
    lede: str
    cards: tuple[Card, ...]
    missing: str = ""


def schemes_on(*axes: tuple[str, ...]) -> list[Scheme]:
    """The schemes whose grid has one of these axes."""
    return [scheme for scheme in SCHEMES if scheme.grid.axes in axes]


def card(scheme: Scheme, scene: Scene, seed: int) -> Card:
    """The scheme's card: its masks as a loader with this seed would draw them."""
    drawn = [(shot, shoot(shot.mask or scheme.mask, shot, scene, seed)) for shot in scheme.shots]
    return Card(
        entry=Entry.of(scheme), panels=scene.paint(drawn, scene.grid), counts=counts([mask for _, mask in drawn])
    )


def shoot(mask: Mask, shot: Shot, scene: Scene, seed: int) -> MaskBatch:
    """The mask of one view of the scene."""
    place = Place(progress=shot.progress, row=shot.row, rows=shot.rows)
    cues = scene.cues[shot.view % len(scene.cues)]
    return mask.draw(scene.grid, [Draw.of(seed, shot.epoch, "gallery", shot.view, place, cues)])


def counts(masks: Sequence[MaskBatch]) -> str:
    """The counts of a card's masks, in words: `1,408 of 1,568 hidden, 160 visible`."""
    if not masks:
        return ""
    n = masks[0].masked.shape[1]
    visible = [int((~mask.masked[0]).sum()) for mask in masks]
    if len(set(visible)) > 1:
        return f"{n:,} tokens; visible: {', '.join(f'{v:,}' for v in visible[:-1])} and {visible[-1]:,}"
    words = f"{n - visible[0]:,} of {n:,} hidden, {visible[0]:,} visible"
    mask = masks[0]
    target = int(mask.target_valid[0].sum())
    if target == n - visible[0]:
        return words
    if mask.mask_token is not None:
        words += f", {int(mask.mask_token[0].sum()):,} of them as the mask token"
    weightless = int((mask.weight[0][mask.target_valid[0]] == 0).sum())
    return f"{words}; {target:,} reconstructed" + (f", {weightless:,} of them without weight" if weightless else "")
