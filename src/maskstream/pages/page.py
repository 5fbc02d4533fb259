"""What all pages share: templates, words for numbers, and files that are written whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from .figures.card import Section
from .figures.flow_colours import wheel
from .figures.pictures import data_uri
from .figures.words import count, percent, plural, span


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


def page(
    *,
    kind: str,
    title: str,
    lede: str,
    facts: Mapping[str, str],
    sections: Sequence[Section],
    curves: Any = None,
    loss: str = "",
    baseline: str = "",
) -> str:
    """One HTML file, complete in itself, of sections of cards; cards of the first one that are shown whole are listed
    under the title. curves: the charts of a run. loss: the definition of its loss. baseline: the trivial predictor.
    """
    whole = [section for section in sections if section.layout == "whole"]
    return render(
        environment(),
        "page.html.j2",
        kind=kind,
        title=title,
        lede=lede,
        facts=facts,
        sections=sections,
        contents=whole[0].cards if whole and curves is None else (),
        curves=curves,
        loss=loss,
        baseline=baseline,
    )


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
