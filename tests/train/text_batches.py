"""Batches of made-up texts with masks, for the tests of models of text."""

import numpy as np

from maskstream.pipelines.masks import Cues, Draw, Mask, Padded, Replace, TokenGrid, Tokens
from maskstream.pipelines.modalities.text.batch import TextBatch, build_text_batch

VOCABULARY, CLS, SEP, MASK_ID = 60, 1, 2, 3
LENGTHS = ((12,), (5, 9), (20,), (3, 4, 7))
"""The documents of each row."""


def replaced(mask: Mask) -> Mask:
    return Padded(mask=Replace(mask=mask, mask_id=MASK_ID, vocabulary=VOCABULARY))


def made_up(
    lengths: tuple[tuple[int, ...], ...] = LENGTHS,
    *,
    length: int = 24,
    seed: int = 0,
    mask: Mask | None = None,
    classes: int = 3,
    place: object | None = None,
) -> TextBatch:
    """Documents [CLS] ... [SEP] of random ids and words of up to two tokens; `mask` by default hides 0.4 of tokens."""
    rng = np.random.default_rng(seed)
    shape = (len(lengths), length)
    tokens, documents = np.zeros(shape, np.int32), np.full(shape, -1, np.int32)
    words, kinds = np.full(shape, -1, np.int32), np.full(shape, 255, np.uint8)
    for row, sizes in enumerate(lengths):
        at, word = 0, 0
        for number, n in enumerate(sizes):
            inside = n - 2
            tokens[row, at : at + n] = [CLS, *rng.integers(4, VOCABULARY, inside), SEP]
            documents[row, at : at + n] = number
            words[row, at + 1 : at + n - 1] = word + np.arange(inside) // 2
            kinds[row, at + 1 : at + n - 1] = (word + np.arange(inside) // 2) % classes
            word += inside
            at += n
    grid = TokenGrid(axes=("token",), shape=(length,), patch=(1,))
    pattern = replaced(Tokens(ratio=0.4)) if mask is None else mask
    draws = []
    for row in range(len(lengths)):
        cue = np.where(documents[row] < 0, -2, words[row]).astype(np.int64)
        classed = np.where(kinds[row] == 255, -1, kinds[row].astype(np.int64))
        cues = Cues(words=cue, tokens=tokens[row].astype(np.int64), classes=classed)
        draws.append(Draw(rng=np.random.default_rng([seed, row]), cues=cues, seed=seed, key=str(row)))
    return build_text_batch(
        tokens=tokens,
        documents=documents,
        words=words,
        classes=kinds,
        mask=pattern.draw(grid, draws),
        key=[str(row) for row in range(len(lengths))],
    )
