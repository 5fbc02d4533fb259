"""Cards of the gallery: a scheme as declared in its file, drawn on real data with its axes; and images and maps of
tokens.
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
from maskstream.pipelines.masks import SCHEMES, Cues, Draw, Mask, MaskBatch, PaperSchedule, Scheme, TokenGrid
from maskstream.pipelines.masks.core import Shot
from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.pipelines.modalities.video.data import video_loader
from maskstream.pipelines.stream.rng import Place

Drawn = tuple[Shot, MaskBatch]
Paint = Callable[[Sequence[Drawn], TokenGrid], tuple[Figure, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class CardText:
    """The text of a card.

    Attributes:
        title: Heading.
        source: Paper and section.
        note: A sentence.
        call: Python call that creates the mask, after `from maskstream.pipelines import masks`.
        name: Name on the command line, or "".
    """

    title: str
    source: str
    note: str
    call: str
    name: str = ""

    @classmethod
    def of(cls, declared: Scheme | PaperSchedule) -> CardText:
        """Return the text of a scheme or a ratio sampler, as declared in its file."""
        return cls(
            title=declared.title,
            source=declared.source,
            note=declared.note.replace("`", ""),
            call=declared.call,
            name=declared.name if isinstance(declared, Scheme) else "",
        )

    def card(self, figures: Sequence[Figure], facts: Sequence[Fact] = ()) -> Card:
        """Return the card with its numbers and figures, and the call below them.

        Args:
            figures: Figures of the card.
            facts: Numbers of the card.
        """
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
    """Real data for schemes.

    Attributes:
        grid: Grid of the tokens.
        paint: Paints masks on the data.
        cues: Mask inputs; view v uses cues[v % len(cues)].
    """

    grid: TokenGrid
    paint: Paint
    cues: tuple[Cues, ...] = (Cues(),)


@dataclass(frozen=True, kw_only=True, slots=True)
class GallerySection:
    """A section: the schemes on some axes, drawn on data of one kind.

    Attributes:
        title: Heading.
        words: Introduction.
        missing: Name of the data, for a note if they are missing.
        needs: Names of the media.
        axes: Axes of the schemes.
        scenes: From media and a seed, returns a function that builds the scene of a scheme.
        more: Returns other cards.
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
        """The schemes on the section's axes."""
        return [scheme for scheme in SCHEMES if scheme.grid.axes in self.axes]

    def section(self, media: Media, seed: int) -> Section:
        """Return the section with its cards, or with a note on missing data.

        Args:
            media: The sample media.
            seed: Seed of the masks.
        """
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
    """Return a function that returns the same scene for each scheme."""
    return lambda scheme: scene


def draw_scheme_card(scheme: Scheme, scene: GalleryScene, seed: int) -> Card:
    """Draw the card of a scheme, with the masks of a loader with this seed.

    Args:
        scheme: The scheme.
        scene: Data to draw it on.
        seed: Seed of the loader.
    """
    drawn = draw_shots(scheme, scene, seed)
    return CardText.of(scheme).card(scene.paint(drawn, scene.grid), count_facts([mask for _, mask in drawn]))


def draw_shots(scheme: Scheme, scene: GalleryScene, seed: int) -> list[Drawn]:
    """Draw each shot of a scheme with its mask.

    Args:
        scheme: The scheme.
        scene: Data to draw it on.
        seed: Seed of the loader.
    """
    return [(shot, draw_shot(shot.mask or scheme.mask, shot, scene, seed)) for shot in scheme.shots]


def draw_shot(mask: Mask, shot: Shot, scene: GalleryScene, seed: int) -> MaskBatch:
    """Draw the mask of one view of a scene.

    Args:
        mask: The mask.
        shot: View, epoch and progress of the draw.
        scene: Data to draw it on.
        seed: Seed of the loader.
    """
    place = Place(progress=shot.progress, row=shot.row, rows=shot.rows)
    cues = scene.cues[shot.view % len(scene.cues)]
    return mask.draw(scene.grid, [Draw.of(seed, shot.epoch, "gallery", shot.view, place, cues)])


def count_facts(masks: Sequence[MaskBatch]) -> tuple[Fact, ...]:
    """Return the counts of a card's masks; if the masks differ, only the numbers of visible tokens."""
    rows = [MaskRow.of(mask, 0) for mask in masks]
    if len(visible := [f"{one.visible:,}" for one in rows]) > 1 and len(set(visible)) > 1:
        words = f"{', '.join(visible[:-1])} and {visible[-1]}"
        return (Fact(name="Visible tokens", value=words, of=f"of {rows[0].masked.size:,}"),)
    return mask_facts(rows[0])


Mesh = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]
Corridor = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]

BOX = (0.08, 0.03, 0.77, 0.92)
"""Box of the animal in the last frame of the default clip: x0, y0, x1, y1 as fractions of the image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Media:
    """Data of each kind; None for missing data, which the page notes.

    Attributes:
        video: Clip uint8 (T, S, S, 3), T even.
        box: Box of an object in its last frame.
        speech: Mono float32 (n,) at 16 kHz.
        crowd: Mono float32 (n,) at 16 kHz.
        animal: Vertices float32 (V, 3) and faces int32 (F, 3).
        plane: Vertices float32 (V, 3) and faces int32 (F, 3).
        walk: Poses float32 (T, 17, 3), z upwards.
        text: A page of English text.
        corridor: Frames of a trajectory: colour uint8 (T, H, W, 3) and depth uint16 (T, H, W) in millimetres.
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
    """Return the first clip of a split: 16 frames, stride 4, 224 pixels.

    Args:
        location: Location of the split.
        seed: Seed of the loader.
    """
    loader = video_loader(location, clip=VideoClip(), batch_size=1, seed=seed, device="cpu", flow="none")
    return next(iter(loader)).video[0].numpy()


Bool = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]


def sheet(planes: Bool, across: int) -> Bool:
    """Arrange planes (n, h, w) in rows, with one empty line between them.

    Args:
        planes: The planes.
        across: Number of planes in a row.
    """
    n, h, w = planes.shape
    lines = -(-n // across)
    out = np.zeros((lines * (h + 1) - 1, across * (w + 1) - 1), dtype=np.bool_)
    for i, plane in enumerate(planes):
        y, x = i // across * (h + 1), i % across * (w + 1)
        out[y : y + h, x : x + w] = plane
    return out


def join_token_maps(layers: Sequence[tuple[str, Bool]], across: int, *, title: str, keys: Sequence[str]) -> Drawing:
    """Join maps of tokens into one drawing.

    Args:
        layers: Class and flags (n, h, w) of each layer.
        across: Number of maps in a row.
        title: Title of the drawing.
        keys: Names of the layers.
    """
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
