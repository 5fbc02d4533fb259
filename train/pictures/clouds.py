"""What the template of clouds shows: sections of figures, and in each some pictures side by side."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudFigure:
    """One cloud: its key, a sentence, and pictures, each a `data:` address and a word."""

    key: str
    words: str
    images: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudSection:
    """A title, how to read what follows, and the figures."""

    title: str
    words: str
    figures: tuple[CloudFigure, ...]


def margin(loss: float, trivial: float) -> str:
    """A loss beside that of a trivial predictor, in words."""
    if loss < trivial:
        return f"{1 - loss / trivial:.0%} below"
    return f"{loss / trivial - 1:.0%} above: nothing was learned that carries over"
