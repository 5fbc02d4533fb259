"""Hostile names: keys, labels and the dataset's name in pages and on the terminal, members of foreign tars.

"exact": a page has the tags, attributes, scripts and styles that it has with harmless names, or an index is right.
"refused": MaskstreamError. "wrong": other tags, a control character on the terminal, or a file that appears elsewhere.
"""

from __future__ import annotations

import shutil
import tarfile
import unicodedata
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.modalities import modality_of
from maskstream.pages.preview import preview
from maskstream.preprocess import index_tars
from maskstream.shards.errors import MaskstreamError
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.verify import verify
from maskstream.shards.format.writer import write_shard

from ..pipelines.small_media import image_samples
from ..preprocess.foreign.foreign_tars import write_tar
from .index_kills import sound

PARTS = (
    *("<script>alert(1)</script>", "</script>", "<img src=x onerror=alert(1)>", "<!--", "-->", "]]>", "</style>"),
    *('" onmouseover="alert(1)', "' x='", "javascript:alert(1)", "&lt;b&gt;", "&#60;", "{{ 7 * 7 }}", "{% raw %}"),
    *("\x1b[31m", "\x1b]0;title\x07", "\r", "\b", "\x9b2J", "\u202e", "\u2066", "\ufeff", "\x00", "\n", "\t", "\x7f"),
    *(
        "../",
        "/etc/passwd",
        "..",
        "~",
        "C:\\",
        "%2e%2e/",
        "[red]",
        "[/]",
        "[link=x]",
        "a" * 300,
        "\U0001f600",
        "\u0301",
    ),
    *("<svg/onload=alert(1)>", "</article>", "</title>", "<base href=//x>", "$(id)", "`id`", ";", "*", "?", "|", "-rf"),
    *("pipe:0", "http://127.0.0.1:9/x", "concat:a|b", "file:///etc/passwd", "data:,x", "\udcff", "\ud800", " ", "."),
)
N_SAMPLES = 3


class Skeleton(HTMLParser):
    """A page without its words: tags with the names of their attributes, addresses, scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.bones: list[object] = []
        self._within = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._within = tag
        far = [value for name, value in attrs if name in ("src", "href") and not str(value).startswith(("data:", "#"))]
        self.bones.append((tag, [name for name, _ in attrs if name != "title"], far))  # a long key has one

    def handle_endtag(self, tag: str) -> None:
        self._within = ""
        self.bones.append(tag)

    def handle_data(self, data: str) -> None:
        if self._within in ("script", "style"):
            self.bones.append(data)

    def handle_comment(self, data: str) -> None:
        self.bones.append(("comment", data))


def hostile(rng: np.random.Generator) -> str:
    """A few of the parts."""
    return "".join(PARTS[i] for i in rng.integers(len(PARTS), size=rng.integers(1, 4)))


def shown(split: Path, samples: list[Sample], names: list[str], keys: list[str]) -> list[object]:
    """Writes a split with these labels and keys; the skeleton of its page. Nothing is checked when it is written."""
    split.mkdir()
    for sample, key in zip(samples, keys, strict=True):
        object.__setattr__(sample, "key", key)
    record = write_shard(split / "t-000000.tar", samples)
    info = DatasetInfo(dataset=names[-1], split="x", modality="image", profile="train", label_names=tuple(names[:-1]))
    finish_split(split, info, [record], [])
    page = preview(
        modality_of(Manifest.load(split)),
        Manifest.load(split),
        out=split.parent / f"{split.name}.html",
        samples=N_SAMPLES,
    )
    return Skeleton(page.read_text()).bones


def commands(split: Path) -> str:
    """What `inspect` and `verify` print of a split."""
    said = ""
    for command in ("inspect", "verify"):
        result = CliRunner().invoke(app, [command, str(split)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        said += result.output
    return said


def harmless_on_terminals(text: str) -> bool:
    """Whether a text has no characters that control a terminal, end a line or change the direction of writing."""
    turns = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return not any(
        (unicodedata.category(char) in ("Cc", "Zl", "Zp") and char != "\n") or unicodedata.bidirectional(char) in turns
        for char in text
    )


def page_end(rng: np.random.Generator, samples: list[Sample], folder: Path, wanted: list[object]) -> str:
    """Hostile labels, sometimes hostile keys too."""
    keys = [f"{hostile(rng)}{i}" if rng.random() < 0.3 else f"s{i}" for i in range(N_SAMPLES)]
    keys = [key.encode("ascii", "ignore").decode()[-90:] for key in keys]  # a header holds no others
    bones = shown(folder / "split", samples, [f"{hostile(rng)}{i}" for i in range(N_SAMPLES + 1)], keys)
    return "exact" if bones == wanted and harmless_on_terminals(commands(folder / "split")) else "wrong"


def tar_end(rng: np.random.Generator, data: bytes, folder: Path) -> str:
    """Members with hostile names, one with a harmless one, and a hostile label."""
    names = ["fine.wav", *(f"{hostile(rng)}.wav" for _ in range(3)), f"{hostile(rng)}.cls", "fine.cls"]
    names = [name.encode("utf-8", "replace").decode() if "\ud800" in name else name for name in names]
    members = [(name, data if name.endswith("wav") else hostile(rng).encode(errors="replace")) for name in names]
    write_tar(folder / "t.tar", members, form=tarfile.PAX_FORMAT)
    index_tars([folder / "t.tar"], folder / "split", modality="audio", workers=0, as_is=True)
    manifest = Manifest.load(folder / "split")
    right = verify(folder / "split", decode=True).ok and "fine" in manifest.keys(range(len(manifest)))
    return "exact" if right and harmless_on_terminals(commands(folder / "split")) else "wrong"


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Makes `count` splits with hostile names, every second an index of a foreign tar."""
    raw = folder / "raw"
    raw.mkdir()
    samples = image_samples(raw)[:N_SAMPLES]
    for i, sample in enumerate(samples):
        object.__setattr__(sample, "label", i)
    plain = shown(folder / "plain", samples, [f"label{i}" for i in range(N_SAMPLES + 1)], ["s0", "s1", "s2"])
    data = sound(np.random.default_rng(seed))
    ends: Counter[str] = Counter()
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        own = folder / f"{number}"
        own.mkdir()
        before = {path for path in folder.rglob("*") if not path.is_relative_to(own)}
        try:
            end = page_end(rng, samples, own, plain) if number % 2 else tar_end(rng, data, own)
        except MaskstreamError:
            end = "refused"
        except Exception as error:
            print(f"foreign: seed {seed}, number {number}: {error!r:.300}")
            end = "foreign"
        if before != {path for path in folder.rglob("*") if not path.is_relative_to(own)}:
            end = "wrong"
        if end == "wrong":
            print(f"wrong: seed {seed}, number {number}")
        ends[end] += 1
        shutil.rmtree(own)
    return ends
