"""Reading pages in tests: their tags and words, the pictures in them, and the cells that a path fills."""

import base64
import re
from html.parser import HTMLParser

import cv2
import numpy as np

from maskstream.modalities import modality_of
from maskstream.pages.figures.video import VideoFigures
from maskstream.pages.gallery import Media
from maskstream.pages.preview import preview as preview_of
from maskstream.pages.preview import preview_page
from maskstream.pages.report.report import write_report as report_of
from maskstream.shards.format.manifest import Manifest

VOID = {"meta", "link", "img", "input", "br", "path"}


def preview(folder, data=None, **settings):
    """The preview of a split, whatever it holds."""
    return preview_of(modality_of(Manifest.load(folder)), Manifest.load(folder), data, **settings)


def write_report(run, data, out=None, **settings):
    """The page of a run's report, of whatever modality its split is, also of that which it was trained on."""
    return report_of(modality_of(Manifest.load(data)), run, data, out, **{"same_split": True, **settings}).page


def video_page(batch, grid, *, title, facts, label_names=()):
    """The preview of a batch of clips."""
    return preview_page([("", VideoFigures(grid=grid, label_names=label_names), batch)], title=title, facts=facts)


def tetrahedron():
    """Its vertices and its faces."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float32)
    return vertices, np.array([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]], dtype=np.int32)


def made_up_media():
    """Media for the gallery, of every kind."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (16, 9, 9, 3), dtype=np.uint8)
    return Media(
        video=coarse.repeat(40, axis=1).repeat(40, axis=2),
        speech=rng.normal(size=130_000).astype(np.float32),
        crowd=rng.normal(size=130_000).astype(np.float32),
        animal=tetrahedron(),
        plane=tetrahedron(),
        walk=rng.normal(size=(300, 17, 3)).astype(np.float32),
        text="To Sherlock Holmes she is always the woman. I have seldom heard him mention her. " * 3,
    )


class Page(HTMLParser):
    """Fails on tags that do not close in order; keeps every tag with its attributes, and the text outside scripts."""

    def __init__(self, text):
        super().__init__()
        self.source = text
        self.tags, self.stack, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def articles(self):
        """A page of each article, in order."""
        return [Page(part) for part in re.findall(r"<article.*?</article>", self.source, re.DOTALL)]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def attributes(self, tag, name):
        return [attrs[name] for t, attrs in self.tags if t == tag and name in attrs]


def decode(uri):
    data = np.frombuffer(base64.b64decode(uri.partition(",")[2]), dtype=np.uint8)
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def without_library(text):
    """The page without the addresses of uPlot and SVG, which name a licence and a namespace."""
    return text.replace("https://github.com/leeoniya/uPlot", "").replace("http://www.w3.org/2000/svg", "")


def complete_in_itself(text):
    """The page, after a check that it refers to nothing outside itself."""
    page = Page(text)
    assert "://" not in without_library(text)
    for name in ("src", "href", "xlink:href", "srcset", "poster", "action", "data"):
        for tag, attrs in page.tags:
            if name in attrs:
                assert attrs[name].startswith(("data:", "#")), f"<{tag} {name}={attrs[name][:40]}>"
    assert not re.search(r"@import|@font-face", text)
    assert all(address.startswith("data:image/webp;base64,") for address in re.findall(r"url\(([^)]*)\)", text))
    policy = next(c for c in page.attributes("meta", "content") if "default-src" in c)
    assert "default-src 'none'" in policy
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for anchor in page.attributes("a", "href"):
        assert anchor[1:] in ids
    return page


def fill(path, shape):
    """The cells that a path of `draw_runs` covers."""
    flags = np.zeros(shape, dtype=bool)
    for x, y, n, back in re.findall(r"M(\d+) (\d+)h(\d+)v1H(\d+)z", path):
        assert x == back
        assert not flags[int(y), int(x) : int(x) + int(n)].any()
        flags[int(y), int(x) : int(x) + int(n)] = True
    return flags
