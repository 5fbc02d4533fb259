"""What the gallery knows of a scheme: the paper, the call, and what it is drawn on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..batch import MaskBatch
from ..masks import Cues, Draw, Mask, TokenGrid
from ..place import Place
from .panels import Panel

Paint = Callable[[MaskBatch, TokenGrid], tuple[Panel, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """A scheme of a paper.

    source: paper and section, or words for one that no paper has. says: one sentence. call: how a user builds it; make
    builds the same. on: the name of the scene that it is drawn on. command: its name on the command line, if it has
    one. progress: the place in the run that is shown.
    """

    name: str
    source: str
    says: str
    call: str
    make: Callable[[], Mask]
    on: str
    command: str | None = None
    progress: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Real data with the grid of its tokens, what it shows of itself, and how a mask over it is drawn."""

    grid: TokenGrid
    paint: Paint
    cues: Cues = field(default_factory=Cues)
    key: str = "gallery"


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One entry of the page. counts: what is hidden, in words."""

    name: str
    source: str
    says: str
    call: str
    panels: tuple[Panel, ...]
    counts: str = ""
    command: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """The cards of one kind of data, a sentence about the data, or why there are none."""

    title: str
    lede: str
    cards: tuple[Card, ...]
    missing: str = ""


def draw(scheme: Scheme, scene: Scene, seed: int) -> MaskBatch:
    """The scheme's mask over the scene, as a loader with this seed would draw it."""
    place = Place(progress=scheme.progress)
    one = Draw.of(seed, 0, scene.key, 0, place, scene.cues)
    return scheme.make().draw(scene.grid, [one])


def card(scheme: Scheme, scene: Scene, seed: int) -> Card:
    """The scheme's card, drawn on the scene."""
    mask = draw(scheme, scene, seed)
    return Card(
        name=scheme.name,
        source=scheme.source,
        says=scheme.says,
        call=scheme.call,
        panels=scene.paint(mask, scene.grid),
        counts=counts(mask),
        command=scheme.command,
    )


def cards(schemes: Iterable[Scheme], scenes: dict[str, Scene], seed: int) -> tuple[Card, ...]:
    """A card for each scheme, on its scene."""
    return tuple(card(scheme, scenes[scheme.on], seed) for scheme in schemes)


def counts(mask: MaskBatch) -> str:
    """What one sample's mask does, in words: `1,408 of 1,568 hidden, 160 visible`."""
    n, visible = mask.masked.shape[1], int((~mask.masked[0]).sum())
    words = f"{n - visible:,} of {n:,} hidden, {visible:,} visible"
    target = int(mask.target_valid[0].sum())
    if target == n - visible:
        return words
    weightless = int((mask.weight[0][mask.target_valid[0]] == 0).sum())
    return f"{words}; {target:,} reconstructed" + (f", {weightless:,} of them without weight" if weightless else "")
