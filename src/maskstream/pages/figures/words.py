"""Numbers and names in the words of pages."""

import re
from collections.abc import Sequence

_KEY_LETTERS = 32


def count(number: int) -> str:
    """1568 as `1,568`."""
    return f"{number:,}"


def percent(share: float) -> str:
    """0.9031 as `90.3 %`, with a space that does not break."""
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def span(numbers: Sequence[int]) -> str:
    """The numbers' extent in words: `19`, or `12 to 25`."""
    low, high = min(numbers), max(numbers)
    return count(low) if low == high else f"{count(low)} to {count(high)}"


def plural(number: int, noun: str) -> str:
    """`1 frame`, `16 frames`."""
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"


def times(text: str) -> str:
    """The text with multiplication signs in sizes such as `14 x 14`."""
    return re.sub(r"(?<=\d) x (?=\d)", " \N{MULTIPLICATION SIGN} ", text)


def short_key(key: str) -> str:
    """A sample's key as pages show it: without the hash at its end, and of a long one the last 32 letters."""
    plain = re.sub(r"(?<=.)-[0-9a-f]{16}$", "", key)
    return plain if len(plain) <= _KEY_LETTERS else f"\N{HORIZONTAL ELLIPSIS}{plain[-_KEY_LETTERS:]}"
