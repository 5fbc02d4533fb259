"""Cards of the gallery: a scheme as its file declares it, drawn on real data of its axes; and the pictures and maps of
tokens on the cards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.pages.figures.card import Card, Code, Drawing, Fact, Facts, Figure, Section
from maskstream.pages.figures.figures import MaskRow, mask_facts
from maskstream.pages.figures.pictures import draw_runs
from maskstream.pipelines.masks import SCHEMES, Cues, Draw, Mask, MaskBatch, PaperLaw, Scheme, TokenGrid
from maskstream.pipelines.masks.core import Shot
from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.pipelines.modalities.video.data import video_loader
from maskstream.pipelines.stream.rng import Place

Drawn = tuple[Shot, MaskBatch]
Paint = Callable[[Sequence[Drawn], TokenGrid], tuple[Figure, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class CardText:
    """The text of a card.

    source: the paper and the section. note: a sentence. call: how a user builds what is drawn, after
    `from maskstream.pipelines import masks`. name: its name on the command line, empty where it has none.
    """

    title: str
    source: str
    note: str
    call: str
    name: str = ""

    @classmethod
    def of(cls, declared: Scheme | PaperLaw) -> CardText:
        """The text of a scheme or a law, as its file declares it."""
        return cls(
            title=declared.title,
            source=declared.source,
            note=declared.note.replace("`", ""),
            call=declared.call,
            name=declared.name if isinstance(declared, Scheme) else "",
        )

    def card(self, figures: Sequence[Figure], facts: Sequence[Fact] = ()) -> Card:
        """The card with its numbers and figures, and the call below them."""
        call = Code(call=self.call, note=f"name: {self.name}" if self.name else "")
        return Card(
            key=self.name or self.title,
            title=self.title,
            words=self.source,
            note=self.note,
            facts=(Facts(items=tuple(facts)),) if facts else (),
            figures=(*figures, call),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class GalleryScene:
    """Real data, with the grid of its tokens, its cues, and a function that paints masks on it.

    cues: those of view v are cues[v % len(cues)].
    """

    grid: TokenGrid
    paint: Paint
    cues: tuple[Cues, ...] = (Cues(),)


@dataclass(frozen=True, kw_only=True, slots=True)
class GallerySection:
    """A section: the schemes on some axes, drawn on data of one kind. needs: the names of the media. missing: what
    there is none of where they are missing. scenes: makes of media and a seed what gives the scene of a scheme. more:
    other cards.
    """

    title: str
    words: str
    missing: str
    needs: tuple[str, ...]
    axes: tuple[tuple[str, ...], ...] = ()
    scenes: Callable[[Media, int], Callable[[Scheme], GalleryScene]] | None = None
    more: Callable[[Media, int], Sequence[Card]] = lambda media, seed: ()

    @property
    def schemes(self) -> list[Scheme]:
        """Those on its axes."""
        return [scheme for scheme in SCHEMES if scheme.grid.axes in self.axes]

    def section(self, media: Media, seed: int) -> Section:
        """The section with its cards, or with the data that is missing."""
        cards: list[Card] = []
        missing = self.missing
        if all(getattr(media, name) is not None for name in self.needs):
            missing = ""
            if self.scenes is not None:
                scene = self.scenes(media, seed)
                cards += [draw_scheme_card(scheme, scene(scheme), seed) for scheme in self.schemes]
            cards += self.more(media, seed)
        return Section(title=self.title, words=self.words, cards=tuple(cards), missing=missing, layout="columns")


def constant(scene: GalleryScene) -> Callable[[Scheme], GalleryScene]:
    """The same scene for each scheme."""
    return lambda scheme: scene


def draw_scheme_card(scheme: Scheme, scene: GalleryScene, seed: int) -> Card:
    """The card of a scheme, with the masks that a loader with this seed draws."""
    drawn = draw_shots(scheme, scene, seed)
    return CardText.of(scheme).card(scene.paint(drawn, scene.grid), count_facts([mask for _, mask in drawn]))


def draw_shots(scheme: Scheme, scene: GalleryScene, seed: int) -> list[Drawn]:
    """Each shot of a scheme with its mask."""
    return [(shot, draw_shot(shot.mask or scheme.mask, shot, scene, seed)) for shot in scheme.shots]


def draw_shot(mask: Mask, shot: Shot, scene: GalleryScene, seed: int) -> MaskBatch:
    """The mask of one view of the scene."""
    place = Place(progress=shot.progress, row=shot.row, rows=shot.rows)
    cues = scene.cues[shot.view % len(scene.cues)]
    return mask.draw(scene.grid, [Draw.of(seed, shot.epoch, "gallery", shot.view, place, cues)])


def count_facts(masks: Sequence[MaskBatch]) -> tuple[Fact, ...]:
    """The counts of the masks of a card. Where the masks differ, only the numbers of visible tokens are given."""
    rows = [MaskRow.of(mask, 0) for mask in masks]
    if len(visible := [f"{one.visible:,}" for one in rows]) > 1 and len(set(visible)) > 1:
        words = f"{', '.join(visible[:-1])} and {visible[-1]}"
        return (Fact(name="Visible tokens", value=words, of=f"of {rows[0].masked.size:,}"),)
    return mask_facts(rows[0])


Mesh = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]
Corridor = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]

BOX = (0.08, 0.03, 0.77, 0.92)
"""Where the animal is in the last frame of the default clip: x0, y0, x1, y1 as shares of the picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Media:
    """Data of each kind. None means that there is none; the page then says so.

    video: uint8 (T, S, S, 3), T even. box: where an object lies in its last frame. speech, crowd: mono float32 (n,) at
    16 kHz. animal, plane: vertices float32 (V, 3) and faces int32 (F, 3). walk: float32 (T, 17, 3), z upwards. text: a
    page of English. corridor: frames of a walk, colours uint8 (T, H, W, 3) and depth uint16 (T, H, W) in millimetres.
    """

    video: npt.NDArray[np.uint8] | None = None
    box: tuple[float, float, float, float] = BOX
    speech: npt.NDArray[np.float32] | None = None
    crowd: npt.NDArray[np.float32] | None = None
    animal: Mesh | None = None
    plane: Mesh | None = None
    walk: npt.NDArray[np.float32] | None = None
    text: str | None = None
    corridor: Corridor | None = None


def first_clip(location: str | Path, seed: int = 0) -> npt.NDArray[np.uint8]:
    """The first clip of the split at `location`: 16 frames, stride 4, 224 pixels."""
    loader = video_loader(location, clip=VideoClip(), batch_size=1, seed=seed, device="cpu", flow="none")
    return next(iter(loader)).video[0].numpy()


Bool = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]


def sheet(planes: Bool, across: int) -> Bool:
    """The planes (n, h, w) side by side in rows of `across`, one empty line between them."""
    n, h, w = planes.shape
    lines = -(-n // across)
    out = np.zeros((lines * (h + 1) - 1, across * (w + 1) - 1), dtype=np.bool_)
    for i, plane in enumerate(planes):
        y, x = i // across * (h + 1), i % across * (w + 1)
        out[y : y + h, x : x + w] = plane
    return out


def join_token_maps(layers: Sequence[tuple[str, Bool]], across: int, *, title: str, keys: Sequence[str]) -> Drawing:
    """Maps of tokens (n, h, w) in rows of `across`: each layer is a class and where it lies, `keys` its words."""
    sheets = [(name, sheet(planes, across)) for name, planes in layers]
    height, width = sheets[0][1].shape
    return Drawing(
        paths=tuple((name, draw_runs(flags)) for name, flags in sheets),
        width=width,
        height=height,
        alt=title,
        title=title,
        crisp=True,
        keys=tuple(zip((name for name, _ in layers), keys, strict=True)),
    )
