"""Numbers and names in the words of pages."""

import re
from collections.abc import Sequence

_KEY_LETTERS = 32


def count(number: int) -> str:
    """Format 1568 as `1,568`."""
    return f"{number:,}"


def percent(share: float) -> str:
    """Format 0.9031 as `90.3 %`, with a no-break space."""
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def span(numbers: Sequence[int]) -> str:
    """Format the range of numbers: `19`, or `12 to 25`."""
    low, high = min(numbers), max(numbers)
    return count(low) if low == high else f"{count(low)} to {count(high)}"


def plural(number: int, noun: str) -> str:
    """Format a number with a noun: `1 frame`, `16 frames`.

    Args:
        number: The number.
        noun: Noun in the singular.
    """
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"


def times(text: str) -> str:
    """Replace the x in sizes such as `14 x 14` by multiplication signs."""
    return re.sub(r"(?<=\d) x (?=\d)", " \N{MULTIPLICATION SIGN} ", text)


def short_key(key: str) -> str:
    """Return a sample's key for pages: without the hash at its end, and the last 32 letters of a long one."""
    plain = re.sub(r"(?<=.)-[0-9a-f]{16}$", "", key)
    return plain if len(plain) <= _KEY_LETTERS else f"\N{HORIZONTAL ELLIPSIS}{plain[-_KEY_LETTERS:]}"
