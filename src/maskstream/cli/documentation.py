"""`maskstream docs`: the pages of the documentation, which are installed with the package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from rich.markdown import Markdown

from maskstream.shards.flag import DataFlag
from maskstream.shards.named import nearest

from .terminal import console, say

Page = Annotated[
    str | None, DataFlag("Page, such as stores, or section of a page, such as training#several-splits [default: list].")
]
_HERE = Path(__file__).parents[1]
FOLDER = next((path for path in (_HERE / "docs", _HERE.parents[1] / "docs") if path.is_dir()), _HERE / "docs")
"""The folder of the pages: of the installed package, or of the repository."""


def docs(page: Page = None) -> None:
    """Print a page of the documentation, or list all pages."""
    pages = {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in sorted(FOLDER.rglob("*.md"))}
    if page is None:
        for name, path in pages.items():
            say(f"  {name:<40}  {path.read_text(encoding='utf-8').partition(chr(10))[0].removeprefix('# ')}")
        return
    name, _, section = page.removeprefix("docs/").partition("#")
    name = name.removesuffix(".md")
    if name not in pages:
        raise ValueError(f"page {name!r} does not exist{nearest(name, list(pages))}; `maskstream docs` lists all pages")
    text = pages[name].read_text(encoding="utf-8")
    text = cut_section(text, section) if section else text
    if console.is_terminal:
        console.print(Markdown(text))
        return
    for line in text.rstrip().splitlines():
        say(line)


def cut_section(text: str, anchor: str) -> str:
    """Return the section of a page under the heading with an anchor, with the sections below it.

    Args:
        text: Text of the page, in Markdown.
        anchor: Anchor of the heading.

    Raises:
        ValueError: if no heading of the page has this anchor.
    """
    sections: dict[str, list[str]] = {}
    depths: dict[str, int] = {}
    is_code = False
    for line in text.splitlines():
        is_code ^= line.startswith("```")
        if not is_code and (heading := re.match(r"(#+) (.+)", line)):
            depth = len(heading[1])
            depths = {slug: above for slug, above in depths.items() if above < depth}
            depths[_slugify(heading[2])] = depth
        for slug in depths:
            sections.setdefault(slug, []).append(line)
    if anchor not in sections:
        raise ValueError(f"the page has no section {anchor!r}; choose one of {', '.join(sections)}")
    return "\n".join(sections[anchor])


def _slugify(heading: str) -> str:
    """Return the anchor of a heading, as generated on the site."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())
