"""What the gallery knows of a scheme: the paper, the call, and what it is drawn on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...pipelines.masks import MASKS, Cues, Draw, Mask, TokenGrid
from ...pipelines.masks.core.batch import MaskBatch
from ...pipelines.stream.place import Place
from .panels import Panel


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """One drawing of a mask: of which view, at which place of the run and of the batch, and what is written with it;
    of another mask than the scheme's where there is `make`."""

    caption: str = ""
    view: int = 0
    progress: float = 0.0
    row: int = 0
    rows: int = 1
    epoch: int = 0
    make: Callable[[], Mask] | None = None


Drawn = tuple[Shot, MaskBatch]
Paint = Callable[[Sequence[Drawn], TokenGrid], tuple[Panel, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """A scheme of a paper.

    source: paper and section, or words for one that no paper has. says: a sentence. call: how a user builds it, after
    `from maskstream.pipelines import masks`. command: its name in MASKS, if it has one; else make builds what the call
    does. on: the scene that it is drawn on. shots: what is drawn; nothing for what is no mask of tokens.
    """

    name: str
    source: str
    says: str
    call: str
    on: str
    command: str | None = None
    make: Callable[[], Any] | None = None
    shots: tuple[Shot, ...] = (Shot(),)

    def mask(self) -> Any:
        """What the call gives."""
        return MASKS[str(self.command)]() if self.make is None else self.make()


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Real data with the grid of its tokens, what it shows of itself, and how masks over it are drawn.

    cues: of view 0, 1, ..., counted around.
    """

    grid: TokenGrid
    paint: Paint
    cues: tuple[Cues, ...] = (Cues(),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One entry of the page. counts: what is hidden, in words."""

    scheme: Scheme
    panels: tuple[Panel, ...]
    counts: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """The cards of one kind of data, a sentence about the data, or what it would take to have them."""

    title: str
    lede: str
    cards: tuple[Card, ...]
    missing: str = ""


def cards(schemes: Iterable[Scheme], scenes: Mapping[str, Scene], seed: int) -> tuple[Card, ...]:
    """A card for each scheme, on its scene."""
    return tuple(card(scheme, scenes[scheme.on], seed) for scheme in schemes)


def card(scheme: Scheme, scene: Scene, seed: int) -> Card:
    """The scheme's card: its masks as a loader with this seed would draw them."""
    drawn = [(shot, shoot((shot.make or scheme.mask)(), shot, scene, seed)) for shot in scheme.shots]
    return Card(scheme=scheme, panels=scene.paint(drawn, scene.grid), counts=counts([mask for _, mask in drawn]))


def shoot(mask: Any, shot: Shot, scene: Scene, seed: int) -> MaskBatch:
    """The mask of one view of the scene."""
    place = Place(progress=shot.progress, row=shot.row, rows=shot.rows)
    cues = scene.cues[shot.view % len(scene.cues)]
    batch: MaskBatch = mask.draw(scene.grid, [Draw.of(seed, shot.epoch, "gallery", shot.view, place, cues)])
    return batch


def counts(masks: Sequence[MaskBatch]) -> str:
    """What the masks of a card do, in words: `1,408 of 1,568 hidden, 160 visible`."""
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
