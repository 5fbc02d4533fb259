"""Schemes for text, drawn on the opening of a story, and for an image with a text."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from maskstream.pages.figures.card import Card, Drawing, Figure, WordPieces, join_picture_row
from maskstream.pages.figures.pictures import draw_masked_picture, draw_runs, resize
from maskstream.pages.figures.text import name_states
from maskstream.pipelines.masks import (
    SPECIAL,
    Cues,
    Draw,
    Joint,
    Padded,
    Random,
    Scheme,
    TextMaskBatch,
    TokenGrid,
    TopScores,
    WholeWords,
)
from maskstream.pipelines.masks.core.scheme import format_call, square
from maskstream.pipelines.stream.rng import Place
from maskstream.shards.arrays import Bools, Int64s

from .scheme import CardText, DrawnMask, GalleryScene, GallerySection, Media, Paint

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


def _read_integers(values: object) -> Int64s:
    return np.array(values, dtype=np.int64)


LENGTH = 72
MASK_ID = 103


def make_text_scenes(text: str) -> Callable[[Scheme], GalleryScene]:
    """Return a function that builds the scene of a scheme: the text, its first sentence with marked subject and object,
    or the levels of a score: rare and long words.
    """
    pieces, phrase = cut_pieces(text, LENGTH), cut_pieces(text, 14)
    level = TopScores(ratio=0.1).hide(pieces.grid, Draw(rng=np.random.default_rng(0), cues=pieces.cues))
    marked = np.array([2.0 * (p in ("Sher", "lock")) + (p == "woman") for p in phrase.text], np.float32)
    scenes = {
        "": GalleryScene(grid=pieces.grid, cues=(pieces.cues,), paint=paint_pieces(pieces)),
        "phrase": GalleryScene(
            grid=phrase.grid, cues=(replace(phrase.cues, scores=marked),), paint=paint_pieces(phrase, marked > 0)
        ),
        "levels": GalleryScene(
            grid=pieces.grid, cues=(pieces.cues, replace(pieces.cues, hidden=level)), paint=paint_pieces(pieces)
        ),
    }
    return lambda scheme: scenes[scheme.scene]


def paint_pieces(pieces: Pieces, marked: Bools | None = None) -> Paint:
    """Return a function that paints masks on the text, and the attention matrix of the decoder if there is one.

    Args:
        pieces: Pieces of the text.
        marked: Pieces to mark.
    """

    def paint(drawn: Sequence[DrawnMask]) -> tuple[Figure, ...]:
        panels: list[Figure] = []
        for one in drawn:
            mask, title = one.mask, one.shot.caption and f"{one.shot.caption}: {int(one.hidden.sum())} hidden"
            tokens, attend = (mask.tokens, mask.attend) if isinstance(mask, TextMaskBatch) else (None, None)
            panels.append(words(pieces, one.hidden, None if tokens is None else tokens[0].numpy(), title, marked))
            if attend is not None:
                panels.append(matrix(attend[0].numpy()))
        return tuple(panels)

    return paint


def words(
    pieces: Pieces,
    hidden: Bools,
    tokens: Int64s | None = None,
    title: str = "",
    marked: Bools | None = None,
) -> WordPieces:
    """Return the text with its hidden pieces marked, or replaced by the tokens that the encoder reads.

    Args:
        pieces: Pieces of the text.
        hidden: Hidden pieces.
        tokens: Tokens that the encoder reads.
        title: Title of the figure.
        marked: Pieces to mark.
    """
    states, keys = name_states(hidden, np.asarray(pieces.cues.tokens), tokens, MASK_ID)
    shown = []
    for i, piece in enumerate(pieces.text):
        state = str(states[i]) or ("special" if piece in ("[CLS]", "[SEP]") else "")
        if tokens is not None and state == "random":
            piece = pieces.vocabulary[int(tokens[i]) % len(pieces.vocabulary)]
        shown.append((piece, f"{state} first" if marked is not None and marked[i] else state, pieces.spaced[i]))
    return WordPieces(pieces=tuple(shown), title=title, keys=keys)


def matrix(attend: Bools) -> Drawing:
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


TEXT = GallerySection(
    title="Text",
    words="The opening of A Scandal in Bohemia, 72 pieces with [CLS] and [SEP]. As a stand-in for a vocabulary, words "
    "of more than five letters are cut into equal parts. Scores are high for rare and long words. A marked "
    "subject and object are underlined.",
    missing="text",
    needs=("text",),
    axes=(("token",),),
    scenes=lambda media, seed: make_text_scenes(str(media.text)),
)

MASK = Joint(parts={"image": Random(ratio=0.75), "text": Padded(mask=WholeWords(ratio=0.15))})
PAIR = CardText(
    title="Image and text",
    source="M3AE",
    note="The mask hides three quarters of the image, and 15 % of the text in whole words.",
    call="masks.Joint(parts={" + ", ".join(f'"{k}": {format_call(m)}' for k, m in MASK.parts.items()) + "})",
)


def draw_pair_masks(pieces: Pieces, seed: int) -> tuple[Bools, Bools]:
    """Return the hidden patches of the image (18, 18) and the hidden pieces of the text (N,).

    Args:
        pieces: Pieces of the text.
        seed: Seed of the masks.
    """
    grid, cues = square(18), {"image": Cues(), "text": pieces.cues}
    draws = {part: [Draw.of(seed, 0, "gallery", 0, Place(), own, part=part)] for part, own in cues.items()}
    masks = MASK.draw({"image": grid, "text": pieces.grid}, draws)
    image, text = (DrawnMask(mask=masks[part]).hidden for part in cues)
    return image, text


def _draw_pair(media: Media, seed: int) -> list[Card]:
    """Draw both parts of one sample, masked."""
    frame, pieces = resize(np.asarray(media.video)[-1:], 288, 288)[0], cut_pieces(str(media.text), LENGTH)
    image, text = draw_pair_masks(pieces, seed)
    title = f"{int((~image).sum())} of {image.size} patches visible, {int(text.sum())} pieces hidden"
    row = join_picture_row(draw_masked_picture(frame, image, "picture"), across=2, title=title)
    return [PAIR.card([row, words(pieces, text)])]


PAIRS = GallerySection(
    title="Image and text",
    words="An image in 18 x 18 patches and a text, as one sample: each part has a separate grid and mask.",
    missing="image or no text",
    needs=("video", "text"),
    more=_draw_pair,
)
