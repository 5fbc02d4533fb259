"""Small pictures of the gallery's cards, for a table of schemes."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np

from ..figures.card import Card, Drawing, Figure, Movie, Picture, Pictures, Score, Section

WIDTH_PX = 128
_WEBP_QUALITY = 60
_COLOURS = {"visible": "#0b7394", "line-visible": "#0b7394", "target": "#b4530a", "skipped": "#b4530a"}
_HIDDEN = "#c3cbd1"


def file_name(key: str) -> str:
    """The name of a card's picture, without its suffix."""
    return re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-")


def write_small(sections: Iterable[Section], folder: Path) -> None:
    """Writes the picture of each card that has one into `folder`, as KEY.webp or KEY.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in small_pictures(card for section in sections for card in section.cards).items():
        (folder / name).write_bytes(data)


def small_pictures(cards: Iterable[Card]) -> Mapping[str, bytes]:
    """By file name: the last picture of each card, `WIDTH_PX` wide, or its first drawing. Cards of words have none."""
    found: dict[str, bytes] = {}
    for card in cards:
        pictures = [picture for figure in card.figures for picture in _pictures(figure)]
        drawings = [figure for figure in card.figures if isinstance(figure, Drawing)]
        if pictures:
            found[f"{file_name(card.key)}.webp"] = _narrow(pictures[-1].uri)
        elif drawings:
            found[f"{file_name(card.key)}.svg"] = _svg(drawings[0]).encode()
    return found


def _pictures(figure: Figure) -> list[Picture]:
    """The pictures of a figure in their order; of a track the frame in the middle."""
    if isinstance(figure, Pictures):
        return list(figure.items)
    if isinstance(figure, Movie):
        frames = [track.frames[len(track.frames) // 2].picture for track in figure.tracks if track.frames]
    elif isinstance(figure, Score):
        frames = [lane.picture for lane in figure.lanes]
    else:
        return []
    return [picture for picture in frames if picture is not None]


def _narrow(uri: str) -> bytes:
    """The picture at a `data:` address, no wider than `WIDTH_PX`, as WebP."""
    data = np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{uri[:40]!r} is no picture")
    height, width = image.shape[:2]
    if width > WIDTH_PX:
        size = WIDTH_PX, max(1, round(height * WIDTH_PX / width))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, made = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, _WEBP_QUALITY])
    return made.tobytes()


def _svg(drawing: Drawing) -> str:
    """The drawing, without the page's style sheet."""
    paths = "".join(f'<path fill="{_COLOURS.get(name, _HIDDEN)}" d="{path}"/>' for name, path in drawing.paths)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {drawing.width:g} {drawing.height:g}" '
        f'width="{WIDTH_PX}">{paths}</svg>'
    )
