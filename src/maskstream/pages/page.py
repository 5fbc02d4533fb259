"""The parts that all pages share: templates, text for numbers, and atomic writing of files."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from maskstream.shards.stores.local_files import publishing, read_regular
from maskstream.shards.stores.url import get_local_path

from .figures.card import Section
from .figures.pictures import encode_data_uri, wheel
from .figures.words import count, percent, plural, short_key, span, times

_MOST_BYTES = 1 << 32
_VENDOR = Path(__file__).with_name("vendor")
"""uPlot 1.6.32 (MIT, see LICENSE there), which draws charts: `dist` of the npm package `uplot`, as it is."""


@cache
def environment() -> Environment:
    """Return the templates of this package, each compiled once; every printed value is escaped."""
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
    """Render a template, with the legend of the flow colours and the chart library, which it includes if needed.

    Args:
        template: Name of the template.
        context: Values for the template.
    """
    uplot = [Markup((_VENDOR / name).read_text(encoding="utf-8")) for name in ("uPlot.min.css", "uPlot.iife.min.js")]
    shared = {"wheel": encode_data_uri(wheel(), lossless=True), "uplot": uplot}
    return environment().get_template(template).render(**shared, **context)


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
    reload_s: int = 0,
) -> str:
    """Return one self-contained HTML file of sections of cards.

    Args:
        kind: Kind of the page.
        title: Title of the page.
        lede: Introduction under the title.
        facts: Facts by name.
        sections: Sections of cards.
        links: Files next to the page, by description; listed after the facts.
        by_section: Whether the links under the title lead to the sections; otherwise they lead to the cards of the
            first full section.
        curves: Charts of a run (`RunCurves`), placed after the first section.
        headline: First sentence of the page.
        details: More facts, which are folded.
        reload_s: Seconds after which the page reloads itself; 0 for never.
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
        charts=curves is not None
        or any(one.kind == "curves" for part in sections for card in part.cards for one in card.figures),
        headline=headline,
        details=details or {},
        reload_s=reload_s,
    )


_OURS = b'<p class="product">maskstream '
"""Every page has it."""


def write_page(page: str, out: str | Path) -> Path:
    """Write a page, which appears complete, and return its path; see `writing_page`.

    Args:
        page: HTML of the page.
        out: HTML file.
    """
    with writing_page(page, out) as path:
        return path


@contextmanager
def writing_page(page: str, out: str | Path) -> Iterator[Path]:
    """Write a page, which appears if the block ends without an error.

    Bytes of names that are not UTF-8 are escaped with backslashes.

    Args:
        page: HTML of the page.
        out: HTML file.

    Raises:
        ValueError: `out` exists and is not a page of this package.
    """
    out = check_page(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with publishing(out, alone=True) as stream:
        stream.write(page.encode(errors="backslashreplace"))
        stream.flush()
        yield out


def check_page(out: str | Path) -> Path:
    """Return the path of a page that may be written; raise ValueError if it is not local or contains something else."""
    out = get_local_path(out, "the page")
    try:
        is_ours = _OURS in read_regular(out, _MOST_BYTES)
    except FileNotFoundError:
        return out
    except OSError as error:
        raise ValueError(f"{out} cannot be overwritten ({error.strerror}); pass a different --out") from error
    if not is_ours:
        raise ValueError(
            f"{out} was not written by maskstream, so it is not overwritten; pass a different --out, or delete it"
        )
    return out
