"""Pages of the documentation that are written elsewhere: those of the repository's root, and those of docstrings."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

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
_LINK = re.compile(r"\[([^]]*)\]\(((?:\.\./)?(?:docs/)?([A-Za-z/_-]+\.md))(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    for page, name in OF_ROOT.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    for page, package in PACKAGES.items():
        text = f"# {package}\n\n::: {package}\n"
        files.append(File.generated(config, f"reference/{page}.md", content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """The text of a page with its links to pages as they lie in the site; a link that shows a path shows its title."""
    return _LINK.sub(_in_site, markdown)


def _in_site(link: re.Match[str]) -> str:
    text, path, name, anchor = link.groups()
    page = {root: page for page, root in OF_ROOT.items()}.get(name, name)
    return f"[{_title(name) if text == path else text}]({page}{anchor or ''})"


def _title(name: str) -> str:
    """The first heading of a page's file."""
    found = next(path for path in (ROOT / "docs" / Path(name).name, ROOT / name) if path.exists())
    return found.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")
