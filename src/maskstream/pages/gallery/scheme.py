"""Cards of the gallery: a scheme as declared in its file, drawn on real data with its axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskstream.pages.figures.card import Card, Code, Fact, Facts, Figure, Section
from maskstream.pages.figures.figures import MaskRow, mask_facts
from maskstream.pipelines.masks import SCHEMES, Cues, Draw, Mask, MaskBatch, PaperSchedule, Scheme, TokenGrid
from maskstream.pipelines.masks.core import Shot
from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.pipelines.modalities.video.data import video_loader
from maskstream.pipelines.stream.rng import Place
from maskstream.shards.arrays import Bools, Float32s, Int32s, UInt8s, UInt16s

PLAIN = Shot()
"""The first view at the beginning of a run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnMask:
    """A mask of one sample, drawn for a shot of a scheme."""

    mask: MaskBatch
    shot: Shot = PLAIN

    @property
    def hidden(self) -> Bools:
        """The hidden tokens on their grid; for a spectrogram in the order of its image, the highest frequency first."""
        axes, hidden = self.mask.grid.axes, self.mask.masked[0].numpy().reshape(self.mask.grid.shape)
        if "freq" in axes:
            return np.asarray((hidden if axes[0] == "freq" else hidden.T)[::-1])
        return hidden


Paint = Callable[[Sequence[DrawnMask]], tuple[Figure, ...]]


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
        views: The images that masks are painted on, if the data are images.
    """

    grid: TokenGrid
    paint: Paint
    cues: tuple[Cues, ...] = (Cues(),)
    views: tuple[UInt8s, ...] = ()

    def draw(self, mask: Mask, seed: int, shot: Shot = PLAIN) -> DrawnMask:
        """Draw the mask of one view, as a loader does.

        Args:
            mask: The mask.
            seed: Seed of the loader.
            shot: View, epoch and progress of the draw.
        """
        place = Place(progress=shot.progress, row=shot.row, rows=shot.rows)
        draw = Draw.of(seed, shot.epoch, "gallery", shot.view, place, self.cues[shot.view % len(self.cues)])
        return DrawnMask(mask=mask.draw(self.grid, [draw]), shot=shot)

    def on_all(self, scheme: Scheme) -> GalleryScene:
        """Return the same scene for every scheme."""
        return self

    def draw_shots(self, scheme: Scheme, seed: int) -> list[DrawnMask]:
        """Draw each shot of a scheme with its mask.

        Args:
            scheme: The scheme.
            seed: Seed of the loader.
        """
        return [self.draw(shot.mask or scheme.mask, seed, shot) for shot in scheme.shots]


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
    missing: str = ""
    needs: tuple[str, ...] = ()
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
        if found := all(getattr(media, name) is not None for name in self.needs):
            if self.scenes is not None:
                build = self.scenes(media, seed)
                for scheme, scene in ((one, build(one)) for one in self.schemes):
                    drawn = scene.draw_shots(scheme, seed)
                    cards.append(CardText.of(scheme).card(scene.paint(drawn), count_facts(drawn)))
            cards += self.more(media, seed)
        missing = "" if found else self.missing
        return Section(title=self.title, words=self.words, cards=tuple(cards), missing=missing, layout="columns")


def count_facts(drawn: Sequence[DrawnMask]) -> tuple[Fact, ...]:
    """Return the counts of a card's masks; if the masks differ, only the numbers of visible tokens."""
    rows = [MaskRow.of(one.mask, 0) for one in drawn]
    if len(visible := [f"{one.visible:,}" for one in rows]) > 1 and len(set(visible)) > 1:
        words = f"{', '.join(visible[:-1])} and {visible[-1]}"
        return (Fact(name="Visible tokens", value=words, of=f"of {rows[0].masked.size:,}"),)
    return mask_facts(rows[0])


Mesh = tuple[Float32s, Int32s]
Corridor = tuple[UInt8s, UInt16s]

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

    video: UInt8s | None = None
    box: tuple[float, float, float, float] = BOX
    speech: Float32s | None = None
    crowd: Float32s | None = None
    animal: Mesh | None = None
    plane: Mesh | None = None
    walk: Float32s | None = None
    text: str | None = None
    corridor: Corridor | None = None


def first_clip(location: str | Path, seed: int = 0) -> UInt8s:
    """Return the first clip of a split: 16 frames, stride 4, 224 pixels.

    Args:
        location: Location of the split.
        seed: Seed of the loader.
    """
    loader = video_loader(location, clip=VideoClip(), batch_size=1, seed=seed, device="cpu", flow="none")
    return next(iter(loader)).video[0].numpy()
