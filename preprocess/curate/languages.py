"""Language identification of texts by py3langid (Lui and Baldwin, langid.py, 2012), whose wheel includes its model."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from maskstream.shards.members.text import LANGUAGE
from maskstream.shards.named import nearest

MOST_LETTERS = 2000
"""Only the first characters of a longer text are classified."""


def list_named_languages(rule: str) -> tuple[str, ...]:
    """Return the codes of the languages whose signals (language_en, ...) a rule uses, in order."""
    return tuple(dict.fromkeys(re.findall(rf"\b{LANGUAGE}([a-z]+)\b", rule)))


def measure_languages(text: str, languages: Sequence[str]) -> dict[str, float]:
    """Return the probability of each language for a text, among all languages of the model.

    Args:
        text: Text to classify; of a longer one the first `MOST_LETTERS` characters.
        languages: ISO 639-1 codes, such as "en".

    Returns:
        A probability, 0 to 1, by the name of its signal, such as language_en.

    Raises:
        ValueError: A language is unknown, or py3langid is not installed.
    """
    shares = dict(_load_identifier().rank(text[:MOST_LETTERS]))
    if unknown := [one for one in languages if one not in shares]:
        raise ValueError(
            f"unknown language {unknown[0]!r}{nearest(unknown[0], [*shares])}; use one of {', '.join(sorted(shares))}"
        )
    return {f"{LANGUAGE}{one}": float(shares[one]) for one in languages}


@cache
def _load_identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise ValueError(
            "language signals need py3langid. Run `pip install 'maskstream[languages]'`, or leave out language signals"
        ) from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
