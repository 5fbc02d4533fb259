"""Cards: the text and figures of one sample or scheme, as the templates use them, without arrays or modalities."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from .chart import Chart, Tick


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """A number with its name, `of` behind it, and a `note` under it. plain: words, which are set smaller."""

    name: str
    value: str
    of: str = ""
    note: str = ""
    plain: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Facts that belong together."""

    items: tuple[Fact, ...]
    title: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """An image as a `data:` address, a path over it in units of a grid of `columns` x `rows`, and words under it.

    marked: the path has a colour that shows on any image; otherwise it is white, as between dark and bright patches.
    """

    uri: str
    alt: str
    outline: str = ""
    columns: int = 1
    rows: int = 1
    caption: str = ""
    marked: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureGrid:
    """Images in rows of `across`, with words above. scale: the numbers at the ends of their colours. wide: it takes the
    page's width, with fewer images in a row where that is narrow.
    """

    items: tuple[Picture, ...]
    across: int
    title: str = ""
    words: str = ""
    scale: tuple[float, float] | None = None
    wide: bool = False
    kind: str = "pictures"


def join_picture_row(
    *items: Picture, title: str = "", words: str = "", scale: tuple[float, float] | None = None, across: int = 0
) -> PictureGrid:
    """Images side by side, or in rows of `across`."""
    return PictureGrid(items=items, across=across or len(items), title=title, words=words, scale=scale)


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """Paths in a box of `width` x `height` units, each with the class that colours it, and words above and below.

    opacity: of each path, where they differ. crisp: lines are edges of cells. stretch: the box takes the page's width,
    and a row has a fixed height, with words to its left and right; under it stand the words `below`, from left to
    right.
    """

    paths: tuple[tuple[str, str], ...]
    width: float
    height: float
    alt: str
    title: str = ""
    words: str = ""
    keys: tuple[tuple[str, str], ...] = ()
    opacity: tuple[float, ...] = ()
    crisp: bool = False
    stretch: bool = False
    aspect: float = 0.0
    left: tuple[str, ...] = ()
    right: tuple[tuple[str, str], ...] = ()
    below: tuple[str, ...] = ()
    kind: str = "drawing"


@dataclass(frozen=True, kw_only=True, slots=True)
class WordPieces:
    """Pieces of text, each with the class that says what happened to it and whether a space stands before it."""

    pieces: tuple[tuple[str, str, bool], ...]
    title: str = ""
    keys: tuple[tuple[str, str], ...] = ()
    kind: str = "words"


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """Charts in rows of `across`, and the name of their x axis."""

    items: tuple[Chart, ...]
    across: int
    x_name: str
    title: str = ""
    kind: str = "curves"


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameTrack:
    """A row of pictures at their times in seconds, None where a frame has none. name: what its pictures are called;
    title: in the player; heading and words: above the row; together: how many frames form one time step of tokens;
    under: words under each step.

    legend: the colours are those of flow, and full colour is the length that `legend` says.
    """

    name: str
    title: str
    heading: str
    words: str
    pictures: tuple[Picture | None, ...]
    times: tuple[float, ...]
    together: int = 1
    under: tuple[str, ...] = ()
    legend: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Movie:
    """Tracks one below the other, with a player. beside: a drawing beside the player. first: the index of the frame
    that the player shows before it plays.
    """

    tracks: tuple[FrameTrack, ...]
    first: int = 0
    beside: Drawing | None = None
    kind: str = "movie"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    """One row over the axis of a score: a track, whose frames stand at their times, or one thing from `at` on, `share`
    wide (of the axis): a picture, or paths in a box of `columns` x `rows`.

    height: low, tall or plot. heading, words: above it. end: where the padding begins, as a share of the lane.
    x_name: of the axis under it.
    """

    heading: str
    words: str
    height: str
    track: FrameTrack | None = None
    picture: Picture | None = None
    paths: tuple[tuple[str, str], ...] = ()
    columns: int = 1
    rows: int = 1
    alt: str = ""
    at: float = 0.0
    share: float = 1.0
    end: float = 1.0
    keys: tuple[tuple[str, str], ...] = ()
    y_ticks: tuple[Tick, ...] = ()
    x_ticks: tuple[Tick, ...] = ()
    x_name: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlayedLanes:
    """Lanes over one axis of time, seconds [from_s, from_s + seconds), and the sound that is heard, a `data:` address
    that begins at sound_s. frame: the width of a frame as a share of the axis; width_px: the axis' least width.
    rules: thin lines through all lanes, as shares. note: about the sound.
    """

    lanes: tuple[Lane, ...]
    from_s: float
    seconds: float
    sound: str
    sound_s: float
    note: str = ""
    frame: float = 0.0
    width_px: int = 0
    rules: tuple[float, ...] = ()
    kind: str = "score"

    @property
    def tracks(self) -> list[FrameTrack]:
        """Those that the player shows."""
        return [lane.track for lane in self.lanes if lane.track is not None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A point of a map: its place from 0 to 1 (left to right, top to bottom), the number of its colour, words for the
    pointer, and an address that it leads to, "" for none.
    """

    x: float
    y: float
    hue: int
    words: str
    link: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scatter:
    """Points on a map."""

    points: tuple[Point, ...]
    alt: str
    kind: str = "scatter"


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """A call in Python, with a note under it."""

    call: str
    note: str = ""
    kind: str = "code"

    @property
    def pieces(self) -> list[str]:
        """The call in pieces between which a line may break: after a bracket, a comma and an equals sign."""
        return re.findall(r"[^(,=]+[(,=]*|[(,=]+", self.call)


Figure = PictureGrid | Drawing | WordPieces | Curves | Movie | PlayedLanes | Scatter | Code


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One sample or scheme: its key, a description, numbers and figures. missing: notes on figures that could not be
    made.

    title: the heading, by default the key. note: sentences under the heading.
    label: name and number, empty for none; None if the page does not show labels. view: from 1; None if a sample has
    only one. icon: a small picture for the list of contents.
    """

    key: str
    words: str
    facts: tuple[Facts, ...] = ()
    figures: tuple[Figure, ...] = ()
    missing: tuple[str, ...] = ()
    title: str = ""
    note: str = ""
    label: str | None = None
    view: int | None = None
    icon: str = ""

    @property
    def rows(self) -> list[list[Figure]]:
        """The figures as they stand: pictures that follow each other are side by side, but for wide ones."""
        return [
            row
            for together, several in groupby(self.figures, _is_narrow)
            for row in ([list(several)] if together else [[one] for one in several])
        ]


def _is_narrow(figure: Figure) -> bool:
    """Whether a figure stands beside others."""
    return isinstance(figure, PictureGrid) and not figure.wide


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """Cards with a title and how to read them. missing: the data that there is none of, in words.

    layout: "whole", one card below the other, each numbered; "columns", side by side; "wide", in one column.
    """

    cards: tuple[Card, ...] = ()
    title: str = ""
    words: str = ""
    numbers: tuple[tuple[str, str], ...] = ()
    layout: str = "whole"
    missing: str = ""

    @property
    def anchor(self) -> str:
        """The name of the section in links of its page."""
        return self.title.lower().replace(" ", "-")


def label_names(info: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of labels that dataset.json has."""
    return tuple(map(str, info.get("label_names", ())))


def label_words(label: int, names: Sequence[str]) -> str:
    """`run (3)`; `3` where it has no name, and nothing where there is no label."""
    if label < 0:
        return ""
    return f"{names[label]} ({label})" if label < len(names) else str(label)


def label_name(label: int, names: Sequence[str]) -> str:
    """The name of a label, or its number where it has none."""
    return names[label] if 0 <= label < len(names) else str(label)
