"""Write the tables of schemes and ratio schedules in docs/masks.md from the declarations in the source.

Run `python -m maskstream.pipelines.masks.table docs/masks.md` to rewrite both.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from . import SCHEDULES, SCHEMES
from .core.scheme import PaperSchedule, Scheme

COMMAND = "python -m maskstream.pipelines.masks.table docs/masks.md"


def format_scheme_table(schemes: Iterable[Scheme] = SCHEMES) -> str:
    """Format a markdown table with one row per scheme."""
    head = ("paper", "call, name, grid, and the tokens that are hidden")
    return _format_table(head, map(_format_scheme_cells, schemes))


def format_schedule_table(schedules: Iterable[PaperSchedule] = SCHEDULES) -> str:
    """Format a markdown table with one row per ratio schedule."""
    return _format_table(
        ("schedule", "ratio", "paper"),
        ((f"`{schedule.call}`", schedule.note, schedule.source) for schedule in schedules),
    )


def _format_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *rows))


def _format_scheme_cells(scheme: Scheme) -> tuple[str, ...]:
    sides = "any number" if scheme.grid.axes == ("token",) else "x".join(map(str, scheme.grid.shape))
    grid = f"{', '.join(scheme.grid.axes)}: {sides}"
    square = scheme.grid.axes in (("h", "w"), ("x", "y", "z"), ("node",)) and len(scheme.shots) < 2
    width = 90 if square else 200
    name = f"`{scheme.name}`; " if scheme.name else ""
    visible = "" if scheme.visible is None else f"; {scheme.visible} visible"
    return (
        f'{scheme.source}<br><img src="pictures/{scheme.picture}" alt="" width="{width}">',
        f"`{scheme.call}`<br>{name}{grid}{visible}<br>{scheme.note}",
    )


TABLES: dict[str, Callable[[], str]] = {"schemes": format_scheme_table, "schedules": format_schedule_table}


def with_tables(text: str) -> str:
    """Return `text` with both tables replaced by current ones.

    Raises:
        ValueError: A marker line is missing.
    """
    for name, table in TABLES.items():
        begin, end = marks(name)
        before, found_begin, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found_begin and found_end):
            raise ValueError(
                f"the table of {name} must be between the lines {begin!r} and {end!r}, but at least one of "
                "them is missing"
            )
        text = f"{before}{begin}\n\n{table()}\n{end}{after}"
    return text


def marks(name: str) -> tuple[str, str]:
    """Return the marker lines before and after the table `name`."""
    return f"<!-- {name}, made by: {COMMAND} -->", f"<!-- end of {name} -->"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(with_tables(path.read_text()))
