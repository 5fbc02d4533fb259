"""The parts that all pages share: templates, text for numbers, and atomic writing of files."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from maskstream.shards.stores.url import local_path

from .figures.card import Section
from .figures.pictures import data_uri, wheel
from .figures.words import count, percent, plural, short_key, span, times


@cache
def environment() -> Environment:
    """The templates of this package, each compiled once; every value that they print is escaped."""
    env = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "count": count,
        "percent": percent,
        "plural": plural,
        "short_key": short_key,
        "span": span,
        "times": times,
    }
    return env


def render(template: str, **context: Any) -> str:
    """The page `template` with the legend of the flow colours, which every page shares, added."""
    return environment().get_template(template).render(wheel=data_uri(wheel(), lossless=True), **context)


def page(
    *,
    kind: str,
    title: str,
    lede: str,
    facts: Mapping[str, str],
    sections: Sequence[Section],
    links: Mapping[str, str] | None = None,
    by_section: bool = False,
    curves: Any = None,
    headline: str = "",
    details: Mapping[str, str] | None = None,
) -> str:
    """One self-contained HTML file of sections of cards.

    links: files beside the page, by what they show; they stand behind the facts.
    by_section: the links under the title lead to the sections; otherwise they lead to the cards of the first section
    that is shown whole. curves: the charts of a run (`RunCurves`), which stand behind the first section. headline: what
    the page says first. details: more facts, which are folded.
    """
    whole = [] if by_section else [section for section in sections if section.layout == "whole"]
    return render(
        "page.html.j2",
        kind=kind,
        title=title,
        lede=lede,
        facts=facts,
        links=links or {},
        sections=sections,
        by_section=by_section,
        contents=whole[0].cards if whole and curves is None else (),
        curves=curves,
        headline=headline,
        details=details or {},
    )


def write_page(page: str, out: str | Path) -> Path:
    """Writes `page` to `out` through a temporary file in the same folder, so no reader sees half of it; returns it.

    Bytes of names that are no UTF-8 are written as escapes such as \\udcff.
    """
    out = local_path(out, "the page")
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(page)
        os.chmod(temporary, 0o644)
        os.replace(temporary, out)
    except BaseException:
        os.unlink(temporary)
        raise
    return out
