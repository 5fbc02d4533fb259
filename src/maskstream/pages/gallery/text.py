"""Schemes for text, drawn on the opening of a story."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from maskstream.pages.figures.card import Drawing, Figure, WordPieces
from maskstream.pages.figures.pictures import draw_runs
from maskstream.pipelines.masks import SPECIAL, Cues, Draw, Scheme, TextMaskBatch, TokenGrid, TopScores

from .scheme import Drawn, GalleryScene, GallerySection, Media, Paint

LONGEST = 5
"""Letters of a piece: longer words are cut into equal parts. A stand-in for a vocabulary of word pieces."""

FUNCTION_WORDS = frozenset(
    (
        "a", "all", "always", "an", "and", "any", "as", "but", "by", "for", "from", "have", "he", "her", "him", "his",
        "i", "in", "into", "is", "it", "not", "of", "one", "she", "such", "that", "the", "their", "they", "this", "to",
        "under", "was", "were", "whole", "with", "would",
    )
)  # fmt: skip
"""Words of grammar; all other words are the other class. A stand-in for parts of speech."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pieces:
    """The pieces of a text, with special ones at both ends.

    Attributes:
        text: Text of each piece.
        spaced: Whether a space precedes each piece.
        vocabulary: Text of each id; fewer ids than BERT's [MASK], which is not one of them.
        cues: Mask inputs: ids int64 (N,), word, class and float32 score of each piece.
    """

    text: tuple[str, ...]
    spaced: tuple[bool, ...]
    vocabulary: tuple[str, ...]
    cues: Cues

    @property
    def grid(self) -> TokenGrid:
        """As many tokens as pieces."""
        return TokenGrid(axes=("token",), shape=(len(self.text),), patch=(1,))


def cut_pieces(text: str, length: int) -> Pieces:
    """Return the first `length` - 2 pieces of a text between [CLS] and [SEP]; scores are high for long words and words
    that are rare on the page.

    Args:
        text: The text.
        length: Number of pieces.
    """
    found = [(m.group(), m.start() > 0 and text[m.start() - 1].isspace()) for m in re.finditer(r"\w+|[^\w\s]", text)]
    often = Counter(word.lower() for word, _ in found)
    rows: list[tuple[str, bool, int, int, float]] = [("[CLS]", False, SPECIAL, -1, -math.inf)]
    for number, (word, spaced) in enumerate(found):
        kind = -1 if not word[0].isalnum() else int(word.lower() not in FUNCTION_WORDS)
        rarity = math.log(len(found) / often[word.lower()]) + len(word) / 10 if word[0].isalnum() else 0.0
        rows += [(part, spaced and i == 0, number, kind, rarity) for i, part in enumerate(cut(word))]
    rows = [*rows[: length - 1], ("[SEP]", True, SPECIAL, -1, -math.inf)]
    vocabulary = (*sorted({row[0] for row in rows if row[2] != SPECIAL}), "[CLS]", "[SEP]")
    texts, spaced_before, words, kinds, scores = zip(*rows, strict=True)
    ids = {piece: i for i, piece in enumerate(vocabulary)}
    return Pieces(
        text=texts,
        spaced=spaced_before,
        vocabulary=vocabulary,
        cues=Cues(
            words=_read_integers(words),
            classes=_read_integers(kinds),
            scores=np.array(scores, dtype=np.float32),
            tokens=_read_integers([ids[piece] for piece in texts]),
        ),
    )


def cut(word: str) -> list[str]:
    """Cut a word into equal parts of at most five letters: `Sherlock` into `Sher` and `lock`."""
    parts = -(-len(word) // LONGEST)
    edges = [round(len(word) * i / parts) for i in range(parts + 1)]
    return [word[a:b] for a, b in pairwise(edges)]


def _read_integers(values: object) -> npt.NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


LENGTH = 72
MASK_ID = 103


def draw_scenes_by_name(text: str) -> dict[str, GalleryScene]:
    """Return the text, its first sentence with marked subject and object, and the levels of a score: rare and long
    words.
    """
    pieces, phrase = cut_pieces(text, LENGTH), cut_pieces(text, 14)
    first = pieces.cues
    level = TopScores(ratio=0.1).hide(pieces.grid, Draw(rng=np.random.default_rng(0), cues=first))
    second = replace(first, hidden=level)
    marked = np.array([2.0 * (p in ("Sher", "lock")) + (p == "woman") for p in phrase.text], np.float32)
    return {
        "": GalleryScene(grid=pieces.grid, cues=(pieces.cues,), paint=make_painter(pieces)),
        "phrase": GalleryScene(
            grid=phrase.grid, cues=(replace(phrase.cues, scores=marked),), paint=make_painter(phrase, marked > 0)
        ),
        "levels": GalleryScene(grid=pieces.grid, cues=(first, second), paint=make_painter(pieces)),
    }


def make_painter(pieces: Pieces, marked: npt.NDArray[np.bool_] | None = None) -> Paint:
    """Return a function that paints masks on the text, and the attention matrix of the decoder if there is one.

    Args:
        pieces: Pieces of the text.
        marked: Pieces to mark.
    """

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
    """Return the text with its hidden pieces marked, or replaced by the tokens that the encoder reads.

    Args:
        pieces: Pieces of the text.
        hidden: Hidden pieces.
        tokens: Tokens that the encoder reads.
        title: Title of the figure.
        marked: Pieces to mark.
    """
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
        keys = (("gone", "[MASK]"), ("random", "a random token"), ("same", "unchanged, but predicted"))
    return WordPieces(pieces=tuple(shown), title=title, keys=keys)


def replaced(piece: str, before: int, after: int, vocabulary: tuple[str, ...]) -> tuple[str, str]:
    """Return the text and the class of a piece whose id was replaced.

    Args:
        piece: Text of the piece.
        before: Original id.
        after: New id.
        vocabulary: Text of each id.
    """
    if after == MASK_ID:
        return piece, "gone"
    return (piece, "same") if after == before else (vocabulary[after % len(vocabulary)], "random")


def matrix(attend: npt.NDArray[np.bool_]) -> Drawing:
    """Draw the positions (columns) that each position of the decoder (rows) attends to."""
    n = len(attend)
    return Drawing(
        paths=(("target", f"M0 0h{n}v{n}H0z"), ("visible", draw_runs(attend))),
        width=n,
        height=n,
        alt="attention of the decoder",
        title="Attention of each decoder position (row) to the others (columns)",
        crisp=True,
        keys=(("line-visible", "attends"), ("target", "does not")),
    )


def _draw_scenes(media: Media, seed: int) -> Callable[[Scheme], GalleryScene]:
    scenes = draw_scenes_by_name(str(media.text))
    return lambda scheme: scenes[scheme.scene]


KIND = GallerySection(
    title="Text",
    words="The opening of A Scandal in Bohemia, 72 pieces with [CLS] and [SEP]. As a stand-in for a vocabulary, words "
    "of more than five letters are cut into equal parts. Scores are high for rare and long words. A marked "
    "subject and object are underlined.",
    missing="text",
    needs=("text",),
    axes=(("token",),),
    scenes=_draw_scenes,
)
