"""Schemes for text, drawn on the opening of a story."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from maskstream.pages.figures.card import Drawing, Figure, Section, WordPieces
from maskstream.pages.figures.tokens import runs_path
from maskstream.pipelines.masks import Draw, TextMaskBatch, TokenGrid, TopScores

from .media import Media
from .scheme import Drawn, GalleryScene, Paint, scheme_card, schemes_on
from .words import Pieces, pieces_of

LENGTH = 72
MASK_ID = 103
TITLE = "Text"
LEDE = (
    "The opening of A Scandal in Bohemia, 72 pieces with [CLS] and [SEP]. In place of a vocabulary, words of more than "
    "five letters are cut into equal parts. Scores are high for rare and long words. A marked subject and object are "
    "underlined."
)

AXES = (("token",),)


def section(media: Media, seed: int) -> Section:
    """The section with its cards, or with the data that is missing."""
    if media.text is None:
        return Section(title=TITLE, words=LEDE, missing="text")
    scenes = scenes_by_name(media.text)
    cards = tuple(scheme_card(s, scenes[s.scene], seed) for s in schemes_on(*AXES))
    return Section(title=TITLE, words=LEDE, cards=cards)


def scenes_by_name(text: str) -> dict[str, GalleryScene]:
    """The text, its first sentence with a marked subject and object, and the levels of a score: rare and long words."""
    pieces, phrase = pieces_of(text, LENGTH), pieces_of(text, 14)
    first = pieces.cues
    level = TopScores(ratio=0.1).hide(pieces.grid, Draw(rng=np.random.default_rng(0), cues=first))
    second = replace(first, hidden=level)
    marked = np.array([2.0 * (p in ("Sher", "lock")) + (p == "woman") for p in phrase.text], np.float32)
    return {
        "": GalleryScene(grid=pieces.grid, cues=(pieces.cues,), paint=painter(pieces)),
        "phrase": GalleryScene(
            grid=phrase.grid, cues=(replace(phrase.cues, scores=marked),), paint=painter(phrase, marked > 0)
        ),
        "levels": GalleryScene(grid=pieces.grid, cues=(first, second), paint=painter(pieces)),
    }


def painter(pieces: Pieces, marked: npt.NDArray[np.bool_] | None = None) -> Paint:
    """Paints masks on the text, and the matrix of decoder rows where there is one."""

    def paint(drawn: Sequence[Drawn], grid: TokenGrid) -> tuple[Figure, ...]:
        panels: list[Figure] = []
        for shot, mask in drawn:
            hidden = mask.masked[0].numpy()
            of_text = mask if isinstance(mask, TextMaskBatch) else None
            tokens = None if of_text is None or of_text.tokens is None else of_text.tokens[0].numpy()
            title = shot.caption and f"{shot.caption}: {int(hidden.sum())} hidden"
            panels.append(words(pieces, hidden, tokens, title, marked))
            if of_text is not None and of_text.attend is not None:
                panels.append(matrix(of_text.attend[0].numpy()))
        return tuple(panels)

    return paint


def words(
    pieces: Pieces,
    hidden: npt.NDArray[np.bool_],
    tokens: npt.NDArray[np.int64] | None = None,
    title: str = "",
    marked: npt.NDArray[np.bool_] | None = None,
) -> WordPieces:
    """The text with its hidden pieces marked, or with `tokens`, which the encoder reads in their place."""
    original = pieces.cues.tokens
    shown = []
    for i, (piece, spaced) in enumerate(zip(pieces.text, pieces.spaced, strict=True)):
        text, state = piece, "special" if piece in ("[CLS]", "[SEP]") else ""
        if hidden[i] and tokens is None:
            state = "gone"
        elif hidden[i] and tokens is not None and original is not None:
            text, state = replaced(piece, int(original[i]), int(tokens[i]), pieces.vocabulary)
        if marked is not None and marked[i]:
            state += " first"
        shown.append((text, state, spaced))
    keys: tuple[tuple[str, str], ...] = (("gone", "hidden"),)
    if tokens is not None:
        keys = (("gone", "[MASK]"), ("random", "a random token"), ("same", "as it is, but predicted"))
    return WordPieces(pieces=tuple(shown), title=title, keys=keys)


def replaced(piece: str, before: int, after: int, vocabulary: tuple[str, ...]) -> tuple[str, str]:
    """The words and the class of a piece whose id `before` became `after`."""
    if after == MASK_ID:
        return piece, "gone"
    return (piece, "same") if after == before else (vocabulary[after % len(vocabulary)], "random")


def matrix(attend: npt.NDArray[np.bool_]) -> Drawing:
    """Which positions (columns) each position of the decoder (rows) attends to."""
    n = len(attend)
    return Drawing(
        paths=(("target", f"M0 0h{n}v{n}H0z"), ("visible", runs_path(attend))),
        width=n,
        height=n,
        alt="attention of the decoder",
        title="What each position of the decoder (row) attends to (column)",
        crisp=True,
        keys=(("line-visible", "attends"), ("target", "does not")),
    )
