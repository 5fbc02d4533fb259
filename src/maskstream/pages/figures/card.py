"""Cards: text and figures of one sample or scheme for the templates, independent of arrays and modalities."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from .chart import Chart, Tick


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """A number with its name, `of` behind it, and a `note` under it; `plain` sets words in smaller type."""

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
    """An image as a `data:` address, with a path over it and a caption.

    Attributes:
        uri: Address of the image.
        alt: Alternative text.
        outline: SVG path in units of the grid.
        columns: Columns of the grid.
        rows: Rows of the grid.
        caption: Text under the image.
        marked: Whether the path has a colour visible on any image; otherwise it is white, for borders between dark and
            bright patches.
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
    """Images in rows of `across`, with text above.

    Attributes:
        items: The images.
        across: Number of images in a row.
        title: Title.
        words: Text above the images.
        scale: Numbers at the ends of their colour scale.
        wide: Whether the grid uses the full page width, with fewer images in a row on narrow pages.
        kind: Name for the template.
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
    """Join images side by side, or in rows of `across`.

    Args:
        items: The images.
        title: Title.
        words: Text above the images.
        scale: Numbers at the ends of their colour scale.
        across: Number of images in a row; 0 for all.
    """
    return PictureGrid(items=items, across=across or len(items), title=title, words=words, scale=scale)


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """Paths in a box, with text above and below.

    Attributes:
        paths: Class, which sets the colour, and SVG path.
        width: Width of the box in units.
        height: Height of the box in units.
        alt: Alternative text.
        title: Title.
        words: Text of the drawing.
        keys: Class and name in the legend.
        opacity: Opacity of each path, if they differ.
        crisp: Whether lines are edges of cells.
        stretch: Whether the box uses the page width, with a fixed height per row and text on both sides.
        aspect: Aspect ratio of the box; 0 for width / height.
        left: Text to the left of each row.
        right: Text to the right of each row.
        below: Text under a stretched box, from left to right.
        kind: Name for the template.
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
    """Pieces of text, each with the class of its state and whether a space precedes it."""

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
    """A row of images.

    Attributes:
        name: Name of the images.
        title: Title in the player.
        heading: Heading above the row.
        words: Text above the row.
        pictures: Image of each frame, or None.
        under: Text under each step.
        legend: Length of full colour, if colours are flow.
    """

    name: str
    title: str
    heading: str
    words: str
    pictures: tuple[Picture | None, ...]
    under: tuple[str, ...] = ()
    legend: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Movie:
    """Tracks one below the other, with a player.

    Attributes:
        tracks: The tracks.
        times: Times of the frames in seconds.
        together: Number of frames in one time step of tokens.
        first: Index of the frame that the player shows first.
        beside: Drawing next to the player.
        kind: Name for the template.
    """

    tracks: tuple[FrameTrack, ...]
    times: tuple[float, ...]
    together: int = 1
    first: int = 0
    beside: Drawing | None = None
    kind: str = "movie"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    """One row over the time axis: a track with frames at their times, an image, or paths in a box of `columns` x
    `rows`.

    Attributes:
        heading: Heading above the row.
        words: Text above the row.
        height: "low", "tall", "plot" or "track".
        track: Frames of the row.
        picture: Image of the row.
        paths: Class and SVG path.
        columns: Columns of the box.
        rows: Rows of the box.
        alt: Alternative text.
        at: Start of the image or paths, as a fraction of the axis.
        share: Width of the image or paths, as a fraction of the axis.
        end: Start of the padding, as a fraction of the lane.
        keys: Class and name in the legend.
        y_ticks: Ticks of the y axis.
        x_ticks: Ticks of the x axis.
        x_name: Label of the axis under the row.
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
    """Lanes over one time axis [from_s, from_s + seconds) in seconds, with a player.

    Attributes:
        lanes: The lanes.
        from_s: Start of the axis.
        seconds: Length of the axis.
        sound: Audio as a `data:` address.
        sound_s: Start of the audio.
        note: Note about the audio.
        times: Times of the frames of all tracks in seconds.
        frame: Width of a frame, as a fraction of the axis.
        width_px: Smallest width of the axis in pixels.
        rules: Positions of thin lines through all lanes, as fractions.
        kind: Name for the template.
    """

    lanes: tuple[Lane, ...]
    from_s: float
    seconds: float
    sound: str
    sound_s: float
    note: str = ""
    times: tuple[float, ...] = ()
    frame: float = 0.0
    width_px: int = 0
    rules: tuple[float, ...] = ()
    kind: str = "score"

    @property
    def tracks(self) -> list[FrameTrack]:
        """The tracks that the player shows."""
        return [lane.track for lane in self.lanes if lane.track is not None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A point of a map: its position from 0 to 1 (left to right, top to bottom), the number of its colour, words for
    the pointer, and an address to which it links, "" for none.
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
    """One sample or scheme: its key, a description, numbers and figures.

    Attributes:
        key: Key of the sample.
        words: Description.
        facts: Groups of numbers.
        figures: The figures.
        missing: Notes on missing figures.
        title: Heading; defaults to the key.
        note: Sentences under the heading.
        label: Name and number of the label, "" for none; None if the page does not show labels.
        view: Number of the view, from 1; None if a sample has one view.
        icon: Small image for the table of contents.
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
        """The figures in rows: consecutive images are side by side, except wide ones."""
        return [
            row
            for together, several in groupby(self.figures, lambda one: isinstance(one, PictureGrid) and not one.wide)
            for row in ([list(several)] if together else [[one] for one in several])
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """Cards with a title and an explanation.

    Attributes:
        cards: The cards.
        title: Title.
        words: Explanation.
        numbers: Names and values of a table.
        layout: "whole", numbered cards below each other; "columns", side by side; "wide", in one column.
        missing: Note on missing data.
    """

    cards: tuple[Card, ...] = ()
    title: str = ""
    words: str = ""
    numbers: tuple[tuple[str, str], ...] = ()
    layout: str = "whole"
    missing: str = ""

    @property
    def anchor(self) -> str:
        """Name of the section in links of its page."""
        return self.title.lower().replace(" ", "-")


def label_names(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of labels in dataset.json."""
    return tuple(map(str, info.get("label_names", ())))


def label_words(label: int, names: Sequence[str]) -> str:
    """Format a label: `run (3)`, `3` if it has no name, and "" without a label.

    Args:
        label: The label; below 0 for none.
        names: Names of the labels.
    """
    if label < 0:
        return ""
    return f"{names[label]} ({label})" if label < len(names) else str(label)


def label_name(label: int, names: Sequence[str]) -> str:
    """Return the name of a label, or its number if it has no name.

    Args:
        label: The label.
        names: Names of the labels.
    """
    return names[label] if 0 <= label < len(names) else str(label)
