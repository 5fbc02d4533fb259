"""The languages of texts, told by py3langid (Lui and Baldwin, langid.py, 2012), whose model is in its wheel."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from maskstream.shards.members.text import LANGUAGE
from maskstream.shards.named import nearest

MOST_LETTERS = 2000
"""Of a longer text the rest is not looked at."""


def list_named_languages(rule: str) -> tuple[str, ...]:
    """The languages whose signals a text names."""
    return tuple(dict.fromkeys(re.findall(rf"\b{LANGUAGE}([a-z]+)\b", rule)))


def measure_languages(text: str, languages: Sequence[str]) -> dict[str, float]:
    """How likely a text is in each language, 0 to 1, of all that are known: language_en, ... A text without words is in
    none. ValueError without py3langid, and for a language that it does not know.
    """
    shares = dict(_load_identifier().rank(text[:MOST_LETTERS]))
    if unknown := [one for one in languages if one not in shares]:
        raise ValueError(
            f"the language {unknown[0]!r} is not known{nearest(unknown[0], [*shares])}; known are "
            f"{', '.join(sorted(shares))}"
        )
    return {f"{LANGUAGE}{one}": float(shares[one]) for one in languages}


@cache
def _load_identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise ValueError(
            "languages of texts are told by py3langid: pip install 'maskstream[languages]'; or leave them out"
        ) from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
