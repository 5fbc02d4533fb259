"""The texts that a tokenizer is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import xxhash

from maskstream.preprocess.source import RejectError, Source

BYTES = 1 << 25
"""How much of the texts counts: the first sources that hold so much."""


def training_texts(sources: Sequence[Source], texts: Callable[[Source], Iterable[str]]) -> Iterator[str]:
    """The texts of the sources, in the order of a hash: all, or the first `BYTES`. texts: those of a source, which may
    be a reject.
    """
    left = BYTES
    for source in sorted(sources, key=lambda one: (xxhash.xxh3_64_intdigest(one.id.encode()), one.id)):
        try:
            held = list(texts(source))
        except RejectError:
            continue
        yield from held
        left -= sum(len(text.encode()) for text in held)
        if left <= 0:
            return
