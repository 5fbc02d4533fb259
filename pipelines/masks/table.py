"""The table of schemes in docs/masks.md, made of what the patterns' files declare.

python -m maskstream.pipelines.masks.table docs/masks.md       writes it anew
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from . import SCHEMES
from .core.scheme import Scheme

BEGIN = "<!-- made by: python -m maskstream.pipelines.masks.table docs/masks.md -->"
END = "<!-- end of the table -->"


def scheme_table(schemes: Iterable[Scheme] = SCHEMES) -> str:
    """A markdown table with a row for each scheme."""
    head = ("paper", "call", "name", "grid: tokens", "visible", "what is hidden, and what is reconstructed")
    rows = [head, ("---",) * len(head), *map(_cells, schemes)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cells(scheme: Scheme) -> tuple[str, ...]:
    sides = "any" if scheme.grid.axes == ("token",) else " ".join(map(str, scheme.grid.shape))
    return (
        scheme.source,
        f"`{scheme.call}`",
        f"`{scheme.name}`" if scheme.name else "",
        f"{' '.join(scheme.grid.axes)}: {sides}",
        "" if scheme.visible is None else str(scheme.visible),
        scheme.note,
    )


def with_table(text: str) -> str:
    """`text` with the table between its two marks as it is made now; ValueError where a mark is missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the table stands between the lines {BEGIN!r} and {END!r}, and they are not both there")
    return f"{before}{BEGIN}\n\n{scheme_table()}\n{END}{after}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(with_table(path.read_text()))
