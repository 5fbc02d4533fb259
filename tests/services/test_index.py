"""Tars in a real object store and on a real web server are indexed where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskstream.preprocess import index_tars

from ..preprocess.foreign.foreign_tars import write_tar
from ..preprocess.foreign.test_far_tars import check, video
from .nginx import WebServer
from .test_reading import uploaded

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    for name, numbers in (("a.tar", range(3)), ("b.tar", range(3, 5))):
        members = [(f"s{n}.mp4", f"s{n}.cls", n) for n in numbers]
        write_tar(
            folder / name,
            [one for mp4, cls, n in members for one in ((mp4, video(n)), (cls, b"cat" if n % 2 else b"dog"))],
        )
    return folder


@pytest.fixture
def near(raw: Path, tmp_path: Path) -> Path:
    index_tars([raw], tmp_path / "near", workers=0)
    return tmp_path / "near"


def test_s3(s3: str, raw: Path, near: Path) -> None:
    url = uploaded(raw, f"{s3}/raw-tars")
    index_tars([url], workers=1)
    check(url, near)


def test_a_web_server(web_server: WebServer, raw: Path, near: Path, tmp_path: Path) -> None:
    for path in raw.glob("*.tar"):
        (web_server.folder / path.name).write_bytes(path.read_bytes())
    index_tars([f"{web_server.url}/a.tar", f"{web_server.url}/b.tar"], tmp_path / "far", workers=1)
    check(tmp_path / "far", near)
