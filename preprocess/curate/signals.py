"""Signals of samples that are measured as they are written; loaders can weight by them. They are stored in the
manifest, not in the tars.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np

from maskstream.shards.arrays import UInt8s
from maskstream.shards.members.image import IMAGE
from maskstream.shards.members.member import Member
from maskstream.shards.members.text import TEXT
from maskstream.shards.members.video import VIDEO

from .languages import measure_languages
from .measures import MOST_FRAMES, keyframes, looks_of, picture

_SYMBOL = re.compile(r"[^\w\s]|_")
_ASCII_SYMBOLS = np.array([_SYMBOL.match(chr(code)) is not None for code in range(128)])
_WORDS = 4


@dataclass(frozen=True, slots=True)
class Signals:
    """Measures each sample as it is written: its image or the keyframes of its first video, and its first text.

    Attributes:
        languages: ISO 639-1 codes; the probability of each becomes a signal of a text.

    Raises:
        ValueError: A language is unknown, or py3langid is not installed.
    """

    languages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.languages:
            measure_languages("", self.languages)

    @property
    def version(self) -> object:
        """Version of the signals, with the languages; 4: larger frames are measured by half of their rows."""
        return {"version": 4, "languages": [*self.languages]} if self.languages else 4

    def of(self, members: Mapping[str, Member], pixels: UInt8s | None) -> dict[str, float]:
        """Return the signals of a sample by name.

        Args:
            members: Members of the sample by name.
            pixels: Its decoded image, uint8 (H, W) or (H, W, 3), BGR; None decodes it here.
        """
        kinds = {member.kind: member for member in [*members.values()][::-1]}
        found: dict[str, float] = {}
        if IMAGE.name in kinds:
            from .looks import look

            found = look(_make_coloured(pixels) if pixels is not None else picture(kinds[IMAGE.name].data))
        elif VIDEO.name in kinds and (frames := list(islice(keyframes(kinds[VIDEO.name].data), MOST_FRAMES))):
            found = looks_of(frames)
        if TEXT.name not in kinds:
            return found
        words = kinds[TEXT.name].data.decode()
        spoken = measure_languages(words, self.languages) if self.languages else {}
        return found | measure_text(words) | spoken


def _make_coloured(pixels: UInt8s) -> UInt8s:
    """Return an image as uint8 (H, W, 3)."""
    return pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR).astype("uint8", copy=False)


def measure_text(text: str) -> dict[str, float]:
    """Measure a text.

    Returns:
        characters: their number. symbols: the fraction of characters that are not letters, digits or spaces.
            repetition: the fraction of sequences of four words that occur earlier in the text (Rae et al., Scaling
            Language Models, 2021, table A1).
    """
    words = text.split()
    sequences = len(words) - _WORDS + 1
    different = len(set(zip(*(words[n:] for n in range(_WORDS)), strict=False)))
    return {
        "characters": float(len(text)),
        "symbols": _count_symbols(text) / max(len(text), 1),
        "repetition": 1 - different / sequences if sequences > 0 else 0.0,
    }


def _count_symbols(text: str) -> int:
    if text.isascii():
        return int(np.count_nonzero(_ASCII_SYMBOLS[np.frombuffer(text.encode(), np.uint8)]))
    return len(_SYMBOL.findall(text))
