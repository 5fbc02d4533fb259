"""Schemes: masks and ratio schedules with the settings of a paper.

The file of a pattern declares its schemes:

    SCHEMES = (
        Scheme(
            name="tube",
            paper="VideoMAE",
            section="sec. 3.3",
            mask=Tube(ratio=0.9),
            grid=CLIP,
            visible=160,
            title="Tube",
            note="One map for all frames of the clip.",
        ),
    )

`masks.MASKS` maps their names to masks, `maskstream gallery` draws each scheme, and docs/masks.md has a row for each
(see table.py). In the same way, ratio schedules are declared as `SCHEDULES` in `schedules/`; the gallery's curves and
the table of schedules are generated from them.
"""

import re
from dataclasses import MISSING, dataclass, field, fields
from operator import mul
from typing import get_args, get_type_hints

import numpy as np

from .base import Mask
from .draw import Cues, TokenGrid
from .ratio import RatioSchedule


def square(side: int) -> TokenGrid:
    """Build a grid of side x side patches of 16 x 16 pixels."""
    return TokenGrid(axes=("h", "w"), shape=(side, side), patch=(16, 16))


CLIP = TokenGrid()
"""16 frames at 224 pixels: 8 x 14 x 14 tokens."""
PICTURE = square(14)
SPECTROGRAM = TokenGrid(axes=("time", "freq"), shape=(64, 8), patch=(16, 16))
"""1024 frames of 128 mel bands."""
TEXT = TokenGrid(axes=("token",), shape=(128,), patch=(1,))


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """One drawing of a scheme in the gallery: a view, progress, epoch, and row of a batch with `rows` samples."""

    caption: str = ""
    """Caption of the drawing."""
    view: int = 0
    progress: float = 0.0
    row: int = 0
    rows: int = 1
    epoch: int = 0
    mask: Mask | None = None
    """Mask to draw; by default, the scheme's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """A mask with the settings of a paper.

    Attributes:
        mask: Mask with the paper's settings.
        paper: Short name of the paper.
        title: Heading in the gallery.
        note: Description in one or two sentences.
        grid: Grid that the paper uses.
        name: Name in `MASKS` and on the command line; empty if it is not listed there.
        section: Section of the paper.
        visible: Number of visible tokens on `grid`; None if it varies between samples.
        shots: Drawings in the gallery.
        scene: Image in the gallery; by default, the one for all schemes on these axes.
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
        """Paper and section."""
        return _source(self.paper, self.section)

    @property
    def call(self) -> str:
        """Expression that builds the mask after `from maskstream.pipelines import masks`."""
        return format_call(self.mask)

    @property
    def picture(self) -> str:
        """File name of the image in `docs/pictures/`: pixels, or an SVG for skeletons and text."""
        key = re.sub(r"[^a-z0-9]+", "-", (self.name or self.title).lower()).strip("-")
        return f"mask-{key}.{'svg' if self.grid.axes[0] in ('frame', 'token') else 'webp'}"

    def make(self) -> Mask:
        """Return the mask; it is frozen, so all callers share one object."""
        return self.mask


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperSchedule:
    """A ratio schedule with the settings of a paper.

    Attributes:
        title: Heading in the gallery.
        note: Description in one or two sentences.
        paper: Short name of the paper; empty if there is none.
        section: Section of the paper.
        curves: Captions and schedules to plot; by default, the schedule itself.
    """

    schedule: RatioSchedule
    title: str
    note: str
    paper: str = ""
    section: str = ""
    curves: tuple[tuple[str, RatioSchedule], ...] = ()

    @property
    def source(self) -> str:
        """Paper and section."""
        return _source(self.paper, self.section)

    @property
    def call(self) -> str:
        """Expression that builds the schedule after `from maskstream.pipelines import masks`."""
        return format_call(self.schedule)

    @property
    def drawn(self) -> tuple[tuple[str, RatioSchedule], ...]:
        """Schedules to plot, with their captions."""
        return self.curves or (("", self.schedule),)


def _source(paper: str, section: str) -> str:
    return f"{paper}, {section}" if section else paper


ENDS = ("start", "end", "low", "high")
"""Schedule fields that hold a ratio."""


def format_call(part: Mask | RatioSchedule) -> str:
    """Format the call that builds a mask or schedule: its ratios, inner masks and settings that are not defaults."""
    given, hints = [], get_type_hints(type(part))
    for f in fields(part):
        value = getattr(part, f.name)
        default = f.default if f.default_factory is MISSING else f.default_factory()
        always = _takes_part(hints[f.name]) or (f.name in ENDS and isinstance(value, float))
        if value != default or (always and value is not None):
            given.append(f"{f.name}={_shown(value)}")
    return f"masks.{type(part).__name__}({', '.join(given)})"


def _takes_part(hint: object) -> bool:
    """Return whether a field of this type may hold a mask or schedule."""
    if kinds := get_args(hint):
        return any(map(_takes_part, kinds))
    return isinstance(hint, type) and issubclass(hint, Mask | RatioSchedule)


def _shown(value: object) -> str:
    """Format an argument of the call."""
    if isinstance(value, Mask | RatioSchedule):
        return format_call(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))}{',' if len(value) == 1 else ''})"
    return repr(value).replace("'", '"')


def made_up_cues(needs: frozenset[str], grid: TokenGrid, rng: np.random.Generator) -> Cues:
    """Generate synthetic mask inputs for tests and benchmarks, such as words of one to three tokens.

    Raises:
        ValueError: A needed input cannot be generated.
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
