"""What all pages share: templates, words for numbers, and files that are written whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from .figures.flow_colours import wheel
from .figures.pictures import data_uri


def environment(*packages: str) -> Environment:
    """The templates of this package and of `packages` before it; everything that is put into them is escaped."""
    loaders = [PackageLoader(package) for package in (*packages, __package__)]
    env = Environment(
        loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters |= {"count": count, "percent": percent, "span": span, "plural": plural}
    return env


def render(env: Environment, template: str, **context: Any) -> str:
    """The page `template` with the legend of the flow colours, which every page shares, added."""
    return env.get_template(template).render(wheel=data_uri(wheel(), lossless=True), **context)


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


def write_page(page: str, out: Path) -> Path:
    """Writes `page` to `out` by way of a temporary file beside it, so that nobody reads half of it; returns `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(page)
        os.chmod(temporary, 0o644)
        os.replace(temporary, out)
    except BaseException:
        os.unlink(temporary)
        raise
    return out
