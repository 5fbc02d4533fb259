"""The documentation as a site."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest
import typer.main
from torch import Tensor

from maskstream.cli import app
from maskstream.pages.gallery.page import list_gallery_sections
from maskstream.pages.gallery.scheme import Media
from maskstream.samples.gallery import fetch_gallery_media
from maskstream.train.recipes import RECIPES

from .attacks.attacks import ATTACKS
from .doc_tool import doc_tool

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipelines", "pipelines.masks", "pipelines.flow", "pipelines.augment", "shards", "preprocess", "train")


def names_in(inventory: Path) -> set[str]:
    """The names that a Sphinx inventory lists."""
    header, data = inventory.read_bytes().split(b"zlib.\n", 1)
    assert header.startswith(b"# Sphinx inventory version 2")
    return {line.split(" ", 1)[0] for line in zlib.decompress(data).decode().splitlines()}


SHAPE = re.compile(r"\((?:\.\.\.|[\w*+/^. -]+|\[\w+),[\w*+/^., \[\]-]*\)")
"""(B, T, H, W, C), (n,), (..., n), (B, [T,] H, W, 3)."""
ARRAY = re.compile(r"\b(?:Tensor|NDArray|ndarray)\b")


def described(thing: object, name: str) -> Iterator[tuple[str, str, list[str]]]:
    """A function, or a class and its public methods and properties: name, docstring, annotations."""
    if isinstance(thing, FunctionType):
        yield name, inspect.getdoc(thing) or "", list(map(str, thing.__annotations__.values()))
    elif isinstance(thing, type):
        fields = {f: str(a) for f, a in vars(thing).get("__annotations__", {}).items()}
        yield name, inspect.getdoc(thing) or "", [a for f, a in fields.items() if f[0] != "_" and "ClassVar" not in a]
        for own, member in vars(thing).items():
            function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if isinstance(function, FunctionType) and (own == "__call__" or own[0] != "_"):
                doc = inspect.getdoc(getattr(thing, own)) or ""  # an overriding method has the doc of its base
                yield f"{name}.{own}", doc, list(map(str, function.__annotations__.values()))


def test_what_takes_or_returns_arrays_says_their_shapes() -> None:
    """Of every public name: a docstring names a shape where an annotation names a tensor or an array."""
    modules = [importlib.import_module(f"maskstream.{package}") for package in PACKAGES]
    found = [one for module in modules for name in module.__all__ for one in described(getattr(module, name), name)]
    arrays = [(name, doc) for name, doc, annotations in found if any(ARRAY.search(one) for one in annotations)]
    lacking = [name for name, doc in arrays if not SHAPE.search(doc)]
    assert not lacking, f"no shape such as (B, T, H, W, C) in the docstrings of {', '.join(lacking)}"
    assert len(arrays) > 90


def test_the_shapes_are_looked_for() -> None:
    def good(x: Tensor) -> None:
        """Takes frames uint8 (B, T, H, W, 3)."""

    def bad(x: Tensor) -> None:
        """Takes frames (all of them)."""

    assert [SHAPE.search(doc) is None for f in (good, bad) for _, doc, _ in described(f, "f")] == [False, True]


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {path: path.read_text() for path in PAGES}
PICTURES = ROOT / "docs/pictures"
named_pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def without_code(text: str) -> str:
    """A page without its blocks of code and code in lines."""
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as code hosts and the site make them."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", head) for head in heads]
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", head.lower()).strip()) for head in plain}


CHANGELOG = ROOT / "CHANGELOG.md"


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), f"{target} is not there"
        if anchor:
            assert anchor in anchors(TEXTS[to]), f"{target}: {to.name} has no such heading"


@named_pages
def test_pictures_of_pages_are_there_and_have_words(page: Path) -> None:
    for tag in re.findall(r"<img [^>]*>", TEXTS[page]):
        assert ' alt="' in tag, tag
    for target in re.findall(r'(?:src|srcset)="([^"]+)"', TEXTS[page]):
        assert (page.parent / target).exists(), f"{target} is not there; run `make pictures`"


@named_pages
def test_no_page_includes_what_a_code_host_does_not_expand(page: Path) -> None:
    assert "--8<--" not in TEXTS[page]
    assert "{%" not in without_code(TEXTS[page])


INSIDE = {"CONTRIBUTING.md", "SECURITY.md", "architecture.md", "benchmarks.md", "decisions.md", "robustness.md"}
"""Pages for whoever reads the source."""


USERS = [page for page in PAGES if page.name not in INSIDE and page.parent.name != "papers"]
"""The pages of papers link their code."""


@pytest.mark.parametrize("page", USERS, ids=lambda page: page.name)
def test_pages_for_users_send_nobody_to_a_source_file(page: Path) -> None:
    sources = re.compile(r"(?<!tests/)\b(?:shards|preprocess|pipelines|train|samples|src/maskstream)/[\w/]+\.py\b")
    assert sources.findall(TEXTS[page]) == []


def test_pictures_are_small_and_each_is_shown() -> None:
    files = sorted(PICTURES.iterdir())
    assert max(path.stat().st_size for path in files) < 200_000
    assert sum(path.stat().st_size for path in files) < 2_000_000
    shown = {name for text in TEXTS.values() for name in re.findall(r"pictures/([\w.-]+)", text)}
    assert {path.name for path in files} == shown


def test_every_paper_has_a_page_that_is_made_of_what_the_code_says() -> None:
    papers = doc_tool("paper_pages")
    folder = ROOT / "docs/papers"
    assert {path.name for path in folder.iterdir()} == {paper.page for paper in papers.PAPERS} | {"README.md"}
    for paper in papers.PAPERS:
        text = (folder / paper.page).read_text()
        assert papers.with_parts(text, paper) == text, f"{paper.page}: run `python docs/site/paper_pages.py`"
    assert papers.index() in (folder / "README.md").read_text()
    with pytest.raises(ValueError, match="must contain both marks"):
        papers.with_parts("# A page\n", papers.PAPERS[0])
    shown = {recipe for paper in papers.PAPERS for recipe in paper.recipes}
    assert shown == set(RECIPES)


def test_every_command_is_in_a_page() -> None:
    text = "\n".join(TEXTS.values())
    commands = [name for name, command in typer.main.get_group(app).commands.items() if not command.hidden]
    lacking = [name for name in commands if not re.search(rf"maskstream (?:\S+, )*{name}\b", text)]
    assert not lacking, f"no page shows maskstream {', '.join(lacking)}"


def test_each_promise_names_a_test_that_is_there() -> None:
    """Of SECURITY.md and docs/robustness.md: files, the tests in them, and attacks."""
    security, robustness = TEXTS[ROOT / "SECURITY.md"], TEXTS[ROOT / "docs/robustness.md"]
    rows = [row for row in robustness.partition("## Attacks")[0].splitlines() if row.startswith("| ")][2:]
    hostile = [row for row in security.splitlines() if row.startswith("| ")][2:]
    kept = re.split(r"\n- ", security.partition("## How it is kept")[2].partition("\n[docs/")[0])[1:]
    assert len(rows) > 30
    assert len(hostile) == 4
    assert len(kept) > 6
    for promise in (*rows, *hostile, *kept):
        named = re.findall(r"`(tests/[\w/.]+)`", promise)
        assert named, f"names no test: {promise}"
        assert not [name for name in named if not (ROOT / name).exists()], promise
        files = [
            path for name in named for path in ((ROOT / name).rglob("*.py") if name.endswith("/") else [ROOT / name])
        ]
        sources = "\n".join(path.read_text() for path in files)
        missing = [name for name in re.findall(r"`(test_\w+)`", promise) if f"def {name}(" not in sources]
        assert not missing, f"{missing} are not there: {promise}"
    attacks = {name for row in rows for name in re.findall(r"`([\w-]+)`", row.rpartition(" | ")[2])}
    attacks |= {name for row in hostile for name in re.findall(r"`([\w-]+)`", row.rpartition("; ")[2])}
    assert attacks <= ATTACKS.keys()


ROOMS = ("shards", "preprocess", "pipelines", "train", "src/maskstream")


def messages_of(path: Path) -> Iterator[str]:
    """The strings of a module, with ... for the values of f-strings."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else "..." for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_messages_of_the_index_of_errors_are_in_the_code() -> None:
    """Values are ... on the page; the fixed words of a message follow one another in one string of the code."""
    table = TEXTS[ROOT / "docs/errors.md"].partition("\n## Opening a split")[2]
    quoted = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(quoted) > 30
    texts = "\n".join(text for room in ROOMS for path in (ROOT / room).rglob("*.py") for text in messages_of(path))
    patterns = {words: ".*".join(map(re.escape, re.split(r"\s*…\s*", words))) for words in quoted}
    assert [words for words, pattern in patterns.items() if not re.search(pattern, texts)] == []


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    pages = {str(path.relative_to(ROOT / "docs")) for path in PAGES if path.is_relative_to(ROOT / "docs")}
    assert pages <= set(re.findall(r"[\w/-]+\.md", nav))


def test_words_of_the_glossary_are_in_the_code() -> None:
    names = {folder.name for folder in ROOT.glob("*/*/") if folder.parent.name in ("preprocess", "train")}
    for path in (
        path for room in ("shards", "preprocess", "pipelines", "train") for path in (ROOT / room).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
                names |= {ast.unparse(target) for target in targets}
    rows = re.findall(r"^\| [a-z][^|]*\| ([^|]+) \|", TEXTS[ROOT / "docs/glossary.md"], re.MULTILINE)
    words = [word for row in rows if row != "in code" for word in re.findall(r"`([^`]+)`", row)]
    assert len(words) > 40
    assert [word for word in words if word.rstrip("=").rpartition(".")[2] not in names] == []
    imported = [word for word in words if word.partition(".")[0] in ("maskstream", "shards", "preprocess", "pipelines")]
    assert len(imported) > 7
    for word in imported:
        package, _, name = f"maskstream.{word.removeprefix('maskstream.')}".rpartition(".")
        found = importlib.import_module(package)
        assert hasattr(found, name) or importlib.util.find_spec(f"{package}.{name}"), f"{word} cannot be imported"


@pytest.mark.slow
def test_the_pictures_are_what_the_command_makes(tmp_path: Path) -> None:
    """The sample media come from the package index. Whatever the encoder writes, the files would stay as they are."""
    found = fetch_gallery_media(tmp_path)
    assert not found.missing
    media = Media(**found.media)
    tool = doc_tool("pictures")
    made = tool.doc_pictures(media, list_gallery_sections(media))
    assert set(made) == {path.name for path in PICTURES.iterdir()}
    differ = [name for name, picture in made.items() if not tool.shows(PICTURES / name, picture)]
    assert not differ, "run `make pictures`"


def test_descriptions_of_fields_properties_and_options_become_rows(tmp_path: Path) -> None:
    griffe = pytest.importorskip("griffe")
    tables = doc_tool("docstrings")
    code = '''
from dataclasses import dataclass
from typing import Annotated

@dataclass
class Base:
    """The base.

    Attributes:
        rate: Samples
            a second.
    """
    rate: int = 16

@dataclass
class Clip(Base):
    """A clip, whose first sentence
    takes two lines. More.
    """
    size: int
    """Height and width."""
    mask: Annotated[str | None, DataFlag("Mask by name.")] = None

    @property
    def area(self) -> int:
        """Pixels of a frame."""

@takes_fields(Clip)
def open_clip(path: str, options: Clip) -> None:
    """Open a clip.

    Args:
        path: Where it lies.
        options: Its fields.
    """
'''
    (tmp_path / "clips.py").write_text(code)
    extensions = griffe.load_extensions("dataclasses", tables.Tables)
    module = griffe.load("clips", search_paths=[tmp_path], extensions=extensions)
    assert tables.first_sentence(module["Clip"].docstring.value) == "A clip, whose first sentence takes two lines."
    text, fields, attributes = module["Clip"].docstring.parse("google")
    assert text.value.startswith("A clip, whose first sentence takes two lines. More.")
    rows = [(row.name, str(row.annotation), row.description, row.default) for row in fields.value]
    assert rows == [
        ("rate", "int", "Samples\na second.", "16"),
        ("size", "int", "Height and width.", None),
        ("mask", "str | None", "Mask by name.", "None"),
    ]
    assert [(row.name, str(row.annotation)) for row in attributes.value] == [("area", "int")]
    assert list(module["Clip"].members) == ["__init__"]
    _, options = module["open_clip"].docstring.parse("google")
    assert [row.name for row in options.value] == ["path", "rate", "size", "mask"]


@pytest.mark.slow
def test_the_site_has_every_public_name_and_no_broken_link(tmp_path: Path) -> None:
    """A broken link or anchor ends the strict build."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "- [The loader](loader/): " in (tmp_path / "site/llms.txt").read_text()
    found = names_in(tmp_path / "site/objects.inv")
    for package in PACKAGES:
        module = importlib.import_module(f"maskstream.{package}")
        names = [name for name in module.__all__ if not isinstance(getattr(module, name), type(importlib))]
        missing = [name for name in names if f"maskstream.{package}.{name}" not in found]
        assert not missing, f"{package} shows no {missing}"
