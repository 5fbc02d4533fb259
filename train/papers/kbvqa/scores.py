"""Scores of answers and rationales that are texts: VQA accuracy, exact match and ROUGE-L."""

from __future__ import annotations

import re
from collections.abc import Sequence

ARTICLES = frozenset({"a", "an", "the"})
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def normalised(answer: str) -> str:
    """An answer in lower case, without punctuation and articles, and with digits for the numbers zero to ten.

    Source: the VQA evaluation (Antol et al., 2015), without its list of contractions.
    """
    words = re.sub(r"[^\w\s]", " ", answer.lower().replace("'", "")).split()
    kept = [str(NUMBERS.index(word)) if word in NUMBERS else word for word in words if word not in ARTICLES]
    return " ".join(kept)


def vqa_accuracy(answer: str, answers: Sequence[str]) -> float:
    """The accuracy of VQA in [0, 1]: the mean over all subsets without one person of min(1, matches / 3).

    answers: those of several people, as a rule ten. A single answer, or aliases of one, count by `exact_match`.
    """
    said, given = normalised(answer), [normalised(one) for one in answers]
    matches = given.count(said)
    others = (matches - (one == said) for one in given)
    return sum(min(1.0, other / 3) for other in others) / len(given)


def exact_match(answer: str, answers: Sequence[str]) -> float:
    """1 if the answer is one of the given, normalised, else 0."""
    return float(normalised(answer) in {normalised(one) for one in answers})


def rouge_l(text: str, references: Sequence[str]) -> float:
    """The best F1 of the longest common subsequence of words with a reference (Lin, 2004), in [0, 1]."""
    words = normalised(text).split()
    return max((_overlap(words, normalised(one).split()) for one in references), default=0.0)


def _overlap(one: Sequence[str], other: Sequence[str]) -> float:
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for i, same in enumerate(other, 1):
            before, row[i] = row[i], before + 1 if word == same else max(row[i], row[i - 1])
    return 2 * row[-1] / max(len(one) + len(other), 1)
