"""Schemes for text, drawn on the opening of a story."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ...pipelines.masks import ByClass, Draw, Padded, Replace, TextMaskBatch, TokenGrid, TopScores, WholeWords
from ..figures.tokens import runs_path
from .media import Media
from .panels import Drawing, Panel, Words
from .scheme import Drawn, Paint, Scene, Scheme, Section, Shot, cards
from .words import Pieces, pieces_of

LENGTH = 72
MASK_ID = 103
TITLE = "Text"
LEDE = (
    "The opening of A Scandal in Bohemia, 72 pieces with [CLS] and [SEP]. For want of a vocabulary, words of more than "
    "five letters are cut into equal parts."
)

SCHEMES = (
    Scheme(
        name="Tokens, each by itself",
        source="MosaicBERT; the MLM of Hugging Face's collator",
        says="Every token is hidden with the same probability, so that counts vary.",
        call="masks.Padded(mask=masks.Tokens(ratio=0.3, each=True))",
        command="mosaicbert",
        on="text",
    ),
    Scheme(
        name="Any number of tokens",
        source="PMLM",
        says="First a number, each equally likely from one token to all of them; then so many tokens.",
        call="masks.Padded(mask=masks.Tokens(ratio=masks.UniformCount()))",
        command="pmlm",
        on="text",
        shots=(Shot(caption="a draw"), Shot(caption="another", epoch=2)),
    ),
    Scheme(
        name="Whole words",
        source="M3AE, its text; RetroMAE's encoder at 0.3",
        says="A word is hidden with all of its pieces, or not at all.",
        call="masks.Padded(mask=masks.WholeWords(ratio=0.15))",
        command="m3ae-text",
        on="text",
    ),
    Scheme(
        name="Replaced tokens",
        source="BERT, sec. 3.1",
        says="Of what is hidden 80 % become [MASK], 10 % a random token, 10 % stay as they are.",
        call="masks.Padded(mask=masks.Replace(mask=masks.WholeWords(ratio=0.3), mask_id=103, vocabulary=30522))",
        make=lambda: Padded(mask=Replace(mask=WholeWords(ratio=0.3), mask_id=103, vocabulary=30522)),
        on="text",
    ),
    Scheme(
        name="Decoder rows",
        source="RetroMAE, enhanced decoding",
        says="Whole words for the encoder; and each position of the decoder attends to a random half of its own.",
        call="masks.Padded(mask=masks.DecoderRows(encoder=masks.WholeWords(ratio=0.3), ratio=0.5))",
        command="retromae",
        on="text",
    ),
    Scheme(
        name="Ratio decay",
        source="Learning Better Masking, ratio decay",
        says="The ratio falls along a cosine while the model learns.",
        call='masks.Padded(mask=masks.Tokens(ratio=masks.RatioDecay(shape="cosine"), each=True))',
        command="mrd",
        on="text",
        shots=(Shot(caption="first batch"), Shot(caption="last batch", progress=1.0)),
    ),
    Scheme(
        name="Weighted by class",
        source="Learning Better Masking, by part of speech",
        says=(
            "Words of a class with a high loss are hidden more often; the trainer sends the losses (masks follow a "
            "Feedback). Here content words are the harder class, words of grammar the easier one."
        ),
        call="masks.Padded(mask=masks.ByClass(ratio=0.3, scores=(1.0, 4.0)))",
        command="ptw",
        make=lambda: Padded(mask=ByClass(ratio=0.3, scores=(1.0, 4.0))),
        on="text",
    ),
    Scheme(
        name="Subject and object first",
        source="OneRef, its text",
        says="Words that matter are hidden first (underlined: Sherlock, woman), then others at random.",
        call="masks.Padded(mask=masks.ScoredFirst(ratio=0.4))",
        command="oneref-text",
        on="phrase",
    ),
    Scheme(
        name="Most important first, level by level",
        source="Recursive ROAR",
        says="The top of a score is hidden, and stays hidden at the next level. The score here: rare and long words.",
        call="masks.Padded(mask=masks.TopScores(ratio=0.1))",
        command="roar",
        on="levels",
        shots=(
            Shot(caption="level 1, a tenth"),
            Shot(caption="level 2, a fifth", view=1, make=lambda: Padded(mask=TopScores(ratio=0.2))),
        ),
    ),
)


def section(media: Media, seed: int) -> Section:
    """The cards, or why there are none."""
    if media.text is None:
        return Section(title=TITLE, lede=LEDE, cards=(), missing="a text")
    return Section(title=TITLE, lede=LEDE, cards=cards(SCHEMES, scenes(media.text), seed))


def scenes(text: str) -> dict[str, Scene]:
    """The text, its first sentence with marked words, and the levels of a score."""
    pieces, phrase = pieces_of(text, LENGTH), pieces_of(text, 14)
    first = pieces.cues
    level = TopScores(ratio=0.1).hide(pieces.grid, Draw(rng=np.random.default_rng(0), cues=first))
    second = replace(first, hidden=level)
    marked = np.array([2.0 * (p in ("Sher", "lock")) + (p == "woman") for p in phrase.text], np.float32)
    return {
        "text": Scene(grid=pieces.grid, cues=(pieces.cues,), paint=painter(pieces)),
        "phrase": Scene(
            grid=phrase.grid, cues=(replace(phrase.cues, scores=marked),), paint=painter(phrase, marked > 0)
        ),
        "levels": Scene(grid=pieces.grid, cues=(first, second), paint=painter(pieces)),
    }


def painter(pieces: Pieces, marked: npt.NDArray[np.bool_] | None = None) -> Paint:
    """Paints masks on the text, and the matrix of decoder rows where there is one."""

    def paint(drawn: Sequence[Drawn], grid: TokenGrid) -> tuple[Panel, ...]:
        panels: list[Panel] = []
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
) -> Words:
    """The text with what is hidden, or where there are `tokens` with what the encoder reads in its place."""
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
    return Words(pieces=tuple(shown), title=title, keys=keys)


def replaced(piece: str, before: int, after: int, vocabulary: tuple[str, ...]) -> tuple[str, str]:
    """What is shown where the id `before` became `after`, and its class."""
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
