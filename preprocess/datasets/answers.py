"""Answers as labels: the frequent answers of the split train are the classes of a set of questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from maskstream.preprocess.source import Source

MOST = 3000
"""The most answers that are classes."""


def answer_labels(
    splits: Mapping[str, Sequence[Source]], least: int = 1
) -> tuple[tuple[str, ...], dict[str, list[Source]]]:
    """The label names, and the sources with their labels: of each its answer, or the first of several.

    The classes are the most frequent answers of train, at most `MOST`, that occur there `least` times, in alphabetical
    order; a source with another answer has the label -1.
    """
    counts = Counter(answer_of(source) for source in splits.get("train", ()))
    counts.pop("", None)
    frequent = [answer for answer in counts if counts[answer] >= least]
    kept = sorted(sorted(frequent, key=lambda answer: (-counts[answer], answer))[:MOST])
    number = {answer: n for n, answer in enumerate(kept)}
    return tuple(kept), {
        split: [replace(source, label=number.get(answer_of(source), -1)) for source in sources]
        for split, sources in splits.items()
    }


def answer_of(source: Source) -> str:
    """The answer of a source in lower case, the first of several; "" without one."""
    given = source.meta.get("answer", "")
    first = given if isinstance(given, str) else next(iter(given), "")
    return str(first).strip().lower()
