"""Schemes: masks with the settings of a paper, and laws with the settings of a paper.

The file of a pattern declares its schemes, once:

    SCHEMES = (
        Scheme(
            name="tube",
            paper="VideoMAE",
            section="sec. 3.3",
            mask=Tube(ratio=0.9),
            grid=CLIP,
            visible=160,
            title="Tube",
            note="One map of the picture for the whole clip.",
        ),
    )

`masks.MASKS` has the names, `maskstream gallery` draws a card for each scheme, docs/masks.md has a row for each (see
table.py). In the same way the files of laws declare `LAWS`, from which the gallery's curves and the table of laws are
made.
"""

import re
from dataclasses import MISSING, dataclass, field, fields
from operator import mul
from typing import get_args, get_type_hints

import numpy as np

from .base import Mask
from .draw import Cues, TokenGrid
from .ratio import Law


def square(side: int) -> TokenGrid:
    """side x side patches of 16 x 16 pixels of a picture."""
    return TokenGrid(axes=("h", "w"), shape=(side, side), patch=(16, 16))


CLIP = TokenGrid()
"""16 frames at 224 pixels: 8 x 14 x 14 tokens."""
PICTURE = square(14)
SPECTROGRAM = TokenGrid(axes=("time", "freq"), shape=(64, 8), patch=(16, 16))
"""1024 frames of 128 mel bands."""
TEXT = TokenGrid(axes=("token",), shape=(128,), patch=(1,))


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """One drawing of a scheme in the gallery: which view, progress of the run, epoch, and row of a batch of `rows`.

    caption: the words with the drawing. mask: the mask that is drawn, by default the scheme's.
    """

    caption: str = ""
    view: int = 0
    progress: float = 0.0
    row: int = 0
    rows: int = 1
    epoch: int = 0
    mask: Mask | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """A mask with the settings of a paper.

    name: what `MASKS` and the command line call it, empty where it has no name. paper, section: where it comes from.
    grid: the grid that the paper draws it on. visible: the tokens that stay visible there, None where samples differ.
    title, note: the heading of its card and what it does, in one or two sentences. shots: what the gallery draws.
    scene: the gallery's picture, where it is not the one of all schemes on these axes.
    """

    mask: Mask
    paper: str
    title: str
    note: str
    grid: TokenGrid
    name: str = ""
    section: str = ""
    visible: int | None = None
    shots: tuple[Shot, ...] = field(default=(Shot(),))
    scene: str = ""

    @property
    def source(self) -> str:
        """The paper and the section."""
        return _source(self.paper, self.section)

    @property
    def call(self) -> str:
        """How a user builds the mask, after `from maskstream.pipelines import masks`."""
        return format_call(self.mask)

    @property
    def picture(self) -> str:
        """The file of its picture in docs/pictures/: an array of pixels, or a drawing of bones or words."""
        key = re.sub(r"[^a-z0-9]+", "-", (self.name or self.title).lower()).strip("-")
        return f"mask-{key}.{'svg' if self.grid.axes[0] in ('frame', 'token') else 'webp'}"

    def make(self) -> Mask:
        """The mask. It is frozen, so one object serves all callers."""
        return self.mask


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperLaw:
    """A law with the settings of a paper.

    paper, section: where it comes from, empty where no paper does. title, note: the heading of its card and what it
    does, in one or two sentences. curves: the laws that the card draws, each with its caption; by default the law.
    """

    law: Law
    title: str
    note: str
    paper: str = ""
    section: str = ""
    curves: tuple[tuple[str, Law], ...] = ()

    @property
    def source(self) -> str:
        """The paper and the section."""
        return _source(self.paper, self.section)

    @property
    def call(self) -> str:
        """How a user builds the law, after `from maskstream.pipelines import masks`."""
        return format_call(self.law)

    @property
    def drawn(self) -> tuple[tuple[str, Law], ...]:
        """The laws of the card, each with its caption."""
        return self.curves or (("", self.law),)


def _source(paper: str, section: str) -> str:
    return f"{paper}, {section}" if section else paper


ENDS = ("start", "end", "low", "high")
"""Fields of laws that hold a ratio."""


def format_call(part: Mask | Law) -> str:
    """The call that builds a mask or a law: its ratios, their ends, inner masks, and what differs from the defaults."""
    given, hints = [], get_type_hints(type(part))
    for f in fields(part):
        value = getattr(part, f.name)
        default = f.default if f.default_factory is MISSING else f.default_factory()
        always = _takes_part(hints[f.name]) or (f.name in ENDS and isinstance(value, float))
        if value != default or (always and value is not None):
            given.append(f"{f.name}={_shown(value)}")
    return f"masks.{type(part).__name__}({', '.join(given)})"


def _takes_part(hint: object) -> bool:
    """Whether a field of this type may hold a mask or a law."""
    if kinds := get_args(hint):
        return any(map(_takes_part, kinds))
    return isinstance(hint, type) and issubclass(hint, Mask | Law)


def _shown(value: object) -> str:
    """A value in a call."""
    if isinstance(value, Mask | Law):
        return format_call(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))}{',' if len(value) == 1 else ''})"
    return repr(value).replace("'", '"')


def made_up_cues(needs: frozenset[str], grid: TokenGrid, rng: np.random.Generator) -> Cues:
    """Made-up cues for a mask that needs them, such as words of one to three tokens: for tests and benchmarks.

    ValueError for a cue that nothing is made up for.
    """
    n, (frames, *sides) = grid.size, tuple(map(mul, grid.shape, grid.patch))
    lengths = rng.choice([1, 1, 1, 2, 3], size=n)
    words = np.concatenate([[-1], np.repeat(np.arange(n), lengths)[: max(n - 2, 0)], [-1]])[:n].astype(np.int64)
    made = Cues(
        frames=rng.integers(256, size=(frames, *sides, 3), dtype=np.uint8) if "frames" in needs else None,
        cuts=np.zeros(frames - 1, dtype=np.bool_),
        energy=rng.integers(1 << 20, size=(frames, *grid.shape[1:])) if "energy" in needs else None,
        flow=np.broadcast_to(np.array([3.0, 1.5], np.float32), (frames - 1, 28, 28, 2)).copy(),
        occupied=rng.random(n) < 0.02,
        box=np.array([0.2, 0.3, 0.6, 0.9]),
        words=words,
        classes=np.where(words < 0, -1, words % 17),
        scores=rng.random(n).astype(np.float32),
        kinds=rng.integers(7, size=n),
        tokens=rng.integers(1000, 30000, size=n),
    )
    return Cues(**{name: made.need(name, by="made_up_cues") for name in needs})
