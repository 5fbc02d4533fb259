"""What the template of clouds shows: sections of numbers and figures, and in each figure rows of pictures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudRow:
    """Pictures side by side, each a `data:` address and a word, under a name for all of them."""

    images: tuple[tuple[str, str], ...]
    name: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudFigure:
    """Its key, a sentence, and rows of pictures."""

    key: str
    words: str
    rows: tuple[CloudRow, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudSection:
    """A title, how to read what follows, numbers with their names, and the figures."""

    title: str
    words: str
    numbers: tuple[tuple[str, str], ...] = ()
    figures: tuple[CloudFigure, ...] = ()


def margin(loss: float, trivial: float) -> str:
    """A loss beside that of a trivial predictor, in words."""
    if loss < trivial:
        return f"{1 - loss / trivial:.0%} below"
    return f"{loss / trivial - 1:.0%} above: nothing was learned that carries over"
