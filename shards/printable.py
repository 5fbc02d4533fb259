"""Text from data on a terminal: control characters are escaped, so that a name can neither move the cursor nor hide."""

import logging
import unicodedata
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_ESCAPED = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories of controls (C0 and C1), of bytes that are not UTF-8, and of line separators."""
_DIRECTIONS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
"""Bidirectional classes of the characters that change the display order of others."""
_MARKS = frozenset("\N{LEFT-TO-RIGHT MARK}\N{RIGHT-TO-LEFT MARK}\N{ARABIC LETTER MARK}")


def make_printable(text: str) -> str:
    """The text on one line as a terminal can show it: control characters become escapes such as \\x1b."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape_character(char) if _is_control(char) else char for char in text)


def _is_control(char: str) -> bool:
    if unicodedata.category(char) in _ESCAPED or char in _MARKS:
        return True
    return unicodedata.bidirectional(char) in _DIRECTIONS


def _escape_character(char: str) -> str:
    return char.encode("ascii", "backslashreplace").decode() if ord(char) > 0x7F else repr(char)[1:-1]


class DataConsole(Console):
    """A console that displays text from data, in anything it prints, with control characters escaped."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print like rich; each text is one line."""
        super().print(*(make_printable(each) if isinstance(each, str) else each for each in objects), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the segments of a renderable, such as a table, a bar or a log line."""
        for text, style, control in super().render(renderable, options):
            parts = [text] if control else text.split("\n")
            for n, part in enumerate(parts):
                if n:
                    yield Segment("\n", style)
                if part:
                    yield Segment(part if control else make_printable(part), style, control)


class PrintableFormatter(logging.Formatter):
    """Formats messages as one line each; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        return make_printable(super().formatMessage(record))
