"""Texts for the tests of text masks, and the published rule of whole words as a plain loop."""

import random
from collections.abc import Iterable, Iterator

import numpy as np

from maskstream.pipelines.masks import PADDING, SPECIAL, Cues, TokenGrid

Row = list[int]


def token_grid(n: int) -> TokenGrid:
    return TokenGrid(axes=("token",), shape=(n,), patch=(1,))


def text(n: int, rng: np.random.Generator, *, padding: int = 0, joined: float = 0.3, classes: int = 17) -> Cues:
    """A text of n tokens: [CLS], words of some tokens, [SEP], padding. All cues of texts."""
    words = np.cumsum(rng.random(n) >= joined)
    words[0] = SPECIAL
    end = n - padding
    words[end - 1] = SPECIAL
    words[end:] = PADDING
    ids = rng.integers(1000, 30000, n)
    scores = np.maximum(rng.random(n) - 0.9, 0).astype(np.float32)
    kinds = np.where(words < 0, -1, words % classes)
    return Cues(words=words, tokens=ids, classes=kinds, scores=scores)


def groups(words: Row) -> list[Row]:
    """The places of each word."""
    found: dict[int, Row] = {}
    for place, word in enumerate(words):
        if word >= 0:
            found.setdefault(word, []).append(place)
    return list(found.values())


def words_in_turn(candidates: Iterable[Row], count: int) -> set[int]:
    """The places that are hidden when words are tried in turn and one that would exceed `count` is skipped."""
    hidden: list[int] = []
    left = iter(candidates)
    while len(hidden) < count and (word := next(left, None)) is not None:
        if len(hidden) + len(word) <= count:
            hidden += word
    return set(hidden)


def splitmix(seed: int) -> Iterator[int]:
    """SplitMix64's numbers, the upper 32 bits of each."""
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) % 2**64
        x = (seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        yield (x ^ (x >> 31)) >> 32


def shuffled(order: list[Row], numbers: Iterator[int]) -> Iterator[Row]:
    """The words in a random order, each drawn when it is asked for; `order` is left as it then is."""
    for i in range(len(order)):
        j = i + (next(numbers) * (len(order) - i) >> 32)
        order[i], order[j] = order[j], order[i]
        yield order[i]


def published_rows(words: Row, ratio: float, pool: int, rng: random.Random) -> list[Row]:
    """RetroMAE's matrix, 1 = attends, mask by mask and row by row."""
    masks = []
    for _ in range(min(len(words), pool)):
        candidates = groups(words)
        rng.shuffle(candidates)
        hidden = words_in_turn(candidates, max(1, round(len(words) * ratio)))
        masks.append([int(place in hidden) for place in range(len(words))])
    rows = []
    for i in range(len(words)):
        row = list(masks[rng.randrange(len(masks))])
        row[i] = 1
        rows.append([1 - hidden for hidden in row])
    return rows
