"""The documentation's site in a browser: every page, and its search."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from .look import Browser

pytestmark = pytest.mark.services

ROOT = Path(__file__).parents[2]


def names(nav: list[object]) -> Iterator[str]:
    """The pages of mkdocs.yml, in order."""
    for entry in nav:
        inner = list(entry.values()) if isinstance(entry, dict) else [entry]
        for one in inner:
            yield from names(one) if isinstance(one, list) else [str(one)]


class _Loose(yaml.SafeLoader):
    """Reads over the tags of mkdocs.yml that name Python objects."""


_Loose.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)
_Loose.add_multi_constructor("!ENV", lambda loader, suffix, node: "")
PAGES = list(names(yaml.load((ROOT / "mkdocs.yml").read_text(), _Loose)["nav"]))

PAPERS = ("papers/README.md", "papers/videomae-v2.md")
"""Of the pages of papers, which have one form, the list and a page with wide tables."""

REFERENCE = ("reference/pipelines.md", "reference/pipelines/loaders.md", "reference/commands/maskstream-shards.md")
"""Of the generated pages, one of each form: a package, its classes and functions, a command."""
MOST_PIXELS = 12_000
"""The height of a page of the reference, in a window 1280 px wide."""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Path:
    """The folder of the site; it is not built where there is no browser."""
    folder = tmp_path_factory.mktemp("site")
    mkdocs = Path(sys.executable).with_name("mkdocs")
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    subprocess.run([mkdocs, "build", "--strict", "-q", "-d", folder], cwd=ROOT, env=env, check=True)
    return folder


@pytest.fixture(scope="module")
def site(built: Path) -> Iterator[str]:
    """The URL of the site, served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(built)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("name", [*(one for one in PAGES if not one.startswith("papers/")), *PAPERS, *REFERENCE])
def test_a_page_of_the_site(browser: Browser, site: str, name: str) -> None:
    path = re.sub(r"(^|/)(index|README)\.md$|\.md$", "/", name).lstrip("/")
    assert browser.faults(site + path, tabs=0) == []


def test_no_page_of_the_reference_is_too_long(browser: Browser, site: str, built: Path) -> None:
    paths = sorted(page.parent.relative_to(built).as_posix() for page in built.glob("reference/**/index.html"))
    assert len(paths) > 60
    faults: list[str] = []
    with browser.opened(site, faults) as page:
        heights = {}
        for path in paths:
            page.goto(f"{site}{path}/", wait_until="load")
            heights[path] = page.evaluate("document.documentElement.scrollHeight")
    assert {path: height for path, height in heights.items() if not 300 < height <= MOST_PIXELS} == {}
    assert faults == []


def test_the_search_finds_by_the_keyboard_alone(browser: Browser, site: str) -> None:
    faults: list[str] = []
    with browser.opened(site, faults) as page:
        page.keyboard.press("/")
        page.keyboard.type("motion-guided", delay=20)
        result = page.locator(".md-search-result__link").first
        result.wait_for(timeout=20_000)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: url.partition("?")[0].rstrip("/") != site.rstrip("/"), timeout=10_000)
        assert page.locator("article h1").count() == 1
    assert faults == []
