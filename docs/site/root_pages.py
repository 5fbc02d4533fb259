"""Pages of the documentation that are written elsewhere: those of the repository's root, and those of docstrings."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
OF_ROOT = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
}
PACKAGES = {
    "pipelines": "maskstream.pipelines",
    "masks": "maskstream.pipelines.masks",
    "flow": "maskstream.pipelines.flow",
    "augment": "maskstream.pipelines.augment",
    "shards": "maskstream.shards",
    "preprocess": "maskstream.preprocess",
    "train": "maskstream.train",
}
PICTURES = ROOT / "runs/pictures"
"""Where `make gallery` puts a small picture of each scheme. Without it the site has none, and needs no network."""
_EXAMPLE = re.compile(r"\[([^]]*)\]\((?:\.\./)?examples(?:/[^)]*)?\)")
"""A link to a file or folder of examples/, which is no page: its text stays."""
_LINK = re.compile(r"\[([^]]*)\]\(((?:\.\./)?(?:docs/)?([A-Za-z/_-]+\.md))(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    for page, name in OF_ROOT.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    for page, package in PACKAGES.items():
        text = f"# {package}\n\n::: {package}\n"
        files.append(File.generated(config, f"reference/{page}.md", content=text))
    for path in _pictures().values():
        files.append(File(f"{PICTURES.name}/{path.name}", str(PICTURES.parent), config.site_dir, False))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """The text of a page with its links to pages as they lie in the site; a link that shows a path shows its title.

    The table of schemes has their pictures.
    """
    markdown = _LINK.sub(_in_site, _EXAMPLE.sub(r"\1", markdown))
    return "\n".join(map(_with_picture, markdown.split("\n"))) if page.file.src_uri == "masks.md" else markdown


def _with_picture(line: str) -> str:
    """A row of the table of schemes with the scheme's picture under its paper."""
    found = next((path for row, path in _pictures().items() if line.startswith(row)), None)
    if found is None:
        return line
    _, paper, rest = line.split("|", 2)
    return f"|{paper}<br>![mask]({PICTURES.name}/{found.name}) |{rest}"


@cache
def _pictures() -> dict[str, Path]:
    """The picture of each scheme by the beginning of its row."""
    if not PICTURES.is_dir():
        return {}
    from maskstream.pages.gallery.small import file_name
    from maskstream.pipelines.masks import SCHEMES

    there = {path.stem: path for path in sorted(PICTURES.iterdir())}
    names = {f"| {scheme.source} | `{scheme.call}` |": file_name(scheme.name or scheme.title) for scheme in SCHEMES}
    return {row: there[name] for row, name in names.items() if name in there}


def _in_site(link: re.Match[str]) -> str:
    text, path, name, anchor = link.groups()
    page = {root: page for page, root in OF_ROOT.items()}.get(name, name)
    return f"[{_title(name) if text == path else text}]({page}{anchor or ''})"


def _title(name: str) -> str:
    """The first heading of a page's file."""
    found = next(path for path in (ROOT / "docs" / Path(name).name, ROOT / name) if path.exists())
    return found.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")
