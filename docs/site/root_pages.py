"""Pages of the documentation that lie in the repository's root, and the list of all pages for language models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import dirname, normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).parents[2]
OF_ROOT = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
}
ROOT_PAGES = {name: page for page, name in OF_ROOT.items()}
_EXAMPLE = re.compile(r"\[([^]]*)\]\((?:\.\./)*(?:examples|train)(?:/[^)]*)?\)")
"""A link to a file or folder of examples/ or train/, which is not a page: its text stays."""
_LINK = re.compile(r"\[([^]]*)\]\(([A-Za-z0-9./_-]+\.md)(#[^)]*)?\)")
_PICTURE = re.compile(r'\b(src|srcset)="(?:docs/|\.\./)*(pictures/[^"]+)"')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    for page, name in OF_ROOT.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """The text of a page with links and pictures as they lie in the site; a link that shows a path shows its title."""
    here = page.file.src_uri
    file = PurePosixPath(OF_ROOT.get(here, f"docs/{here}"))

    def link(found: re.Match[str]) -> str:
        text, path, anchor = found.groups()
        to = normpath(file.parent / path)
        inside = ROOT_PAGES.get(to, to.removeprefix("docs/"))
        return f"[{_title(to) if text == path else text}]({relpath(inside, dirname(here) or '.')}{anchor or ''})"

    def picture(found: re.Match[str]) -> str:
        return f'{found[1]}="{get_relative_url(found[2], page.url)}"'

    return _PICTURE.sub(picture, _LINK.sub(link, _EXAMPLE.sub(r"\1", markdown)))


def on_post_build(config: MkDocsConfig) -> None:
    """Write llms.txt, the list of all pages for language models: title, path and first sentence of each."""
    lines = [f"# {config.site_name}", "", f"> {config.site_description}"]
    for group in config.nav or []:
        ((heading, entries),) = group.items()
        lines += ["", f"## {heading}", "", *(_list_page(*page) for page in _flatten(entries))]
    (Path(config.site_dir) / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _flatten(entries: list[Any], heading: str = "") -> Iterator[tuple[str, str]]:
    """The title and the file of each page below a part of the navigation."""
    for entry in entries:
        for title, under in entry.items() if isinstance(entry, dict) else [("", entry)]:
            if isinstance(under, list):
                yield from _flatten(under, title)
            else:
                yield f"{heading} {title}".strip(), under


def _list_page(title: str, page: str) -> str:
    path = re.sub(r"(^|/)(index|README)\.md$|\.md$", "/", page).lstrip("/")
    name = OF_ROOT.get(page, f"docs/{page}")
    if not (ROOT / name).exists():
        return f"- [{title}]({path})"
    paragraphs = (ROOT / name).read_text(encoding="utf-8").split("\n\n")
    first = next((text for text in paragraphs if text[:1].isalnum()), "")
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", first.replace("\n", " "))
    sentence = re.split(r"(?<=[.]) ", plain, maxsplit=1)[0]
    return f"- [{_title(name)}]({path}): {sentence}".removesuffix(": ")


def _title(name: str) -> str:
    """The first heading of a file."""
    return (ROOT / name).read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")
