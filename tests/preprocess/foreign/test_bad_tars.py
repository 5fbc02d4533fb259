"""Tars that others wrote and that are damaged, lie, or hold what is no video: each is named."""

import io
import tarfile

import numpy as np
import pytest

from maskstream.preprocess import index_tars
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify

from .foreign_tars import rejects, write_tar
from .foreign_videos import VIDEOS, write_video


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """The bytes of two videos that are whole."""
    folder = tmp_path_factory.mktemp("media")
    return {name: write_video(folder / name, *VIDEOS[name]) for name in ("faststart.mp4", "vp9.webm")}


def test_rejects_name_what_is_wrong(media, tmp_path):
    good, mkv = media["faststart.mp4"], media["vp9.webm"]
    rotated = bytearray(good)
    at = good.index(b"tkhd") + 44
    rotated[at : at + 36] = np.array([0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    other = write_video(tmp_path / "mpeg4.mp4", "mpeg4", {}, {})
    members = [
        ("good.mp4", good),
        ("good.cls", b"7"),
        ("cut.mp4", good[: len(good) * 2 // 3]),
        ("cutmkv.webm", mkv[: len(mkv) // 2]),
        ("text.mp4", b"no video" * 200),
        ("empty.mp4", b""),
        ("mpeg4.mp4", other),
        ("rotated.mp4", bytes(rotated)),
        ("label.mp4", good),
        ("label.json", b"{"),
        ("bool.mp4", good),
        ("bool.json", b'{"label": true}'),
        ("twice.mp4", good),
        ("twice.mp4", good),
        ("words.json", b"{}"),
        ("good.txt", b"too late"),
        ("README", b"read me"),
        ("._good.mp4", b"resource"),
    ]
    write_tar(tmp_path / "x.tar", members)
    write_tar(tmp_path / "y.tar", [("good.mp4", good), ("fine.mp4", good)])
    report = index_tars([tmp_path], as_is=True, workers=0)
    manifest = Manifest.load(tmp_path)
    assert manifest.keys(range(report.samples)) == ["good", "fine"]
    assert manifest.label.tolist() == [7, -1]
    found = rejects(tmp_path)
    expected = {
        "x.tar:cut": "",
        "x.tar:cutmkv": "truncated",
        "x.tar:text": "not an mp4, mov, mkv or webm file",
        "x.tar:empty": "is empty",
        "x.tar:mpeg4": "is mpeg4",
        "x.tar:rotated": "rotated",
        "x.tar:label": "json is damaged",
        "x.tar:bool": "True; use an integer",
        "x.tar:twice": "'mp4' twice",
        "x.tar:words": "has no video",
        "x.tar:good": "its key occurs earlier",
        "x.tar:README": "not a member of a sample",
        "x.tar:._good.mp4": "not a member of a sample",
        "y.tar:good": "also occurs in x.tar",
    }
    assert found.keys() == expected.keys()
    assert all(words in found[source] for source, words in expected.items()), found
    assert sum(report.rejects.values()) == len(expected)
    assert verify(tmp_path, decode=True).problems == []


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_names_of_every_form_of_tar(media, tmp_path, form):
    name = "é" * 40 if form == tarfile.USTAR_FORMAT else "ünï/" * 60 + "clip"
    path = write_tar(tmp_path / "x.tar", [(f"{name}.mp4", media["faststart.mp4"])], form)
    index_tars([path], as_is=True, workers=0, fast=True)
    assert Manifest.load(tmp_path).key(0) == name
    assert verify(tmp_path).ok


def test_damaged_tars_end_where_the_damage_is(media, tmp_path):
    data = media["faststart.mp4"]
    path = write_tar(tmp_path / "x.tar", [("one.mp4", data), ("two.mp4", data), ("three.mp4", data)])
    whole = path.read_bytes()
    path.write_bytes(whole[: 2 * (512 + -(-len(data) // 512) * 512) + 700])
    index_tars([path], as_is=True, workers=0, fast=True)
    assert Manifest.load(tmp_path).keys([0]) == ["one"]
    assert set(rejects(tmp_path)) == {"x.tar:two", "x.tar"}
    path.write_bytes(b"\x1f\x8b" + whole[2:])
    with pytest.raises(DatasetError, match=r"1 tars contain no usable video.*gunzip"):
        index_tars([path], as_is=True, workers=0)


def test_headers_that_lie_are_bounded(media, tmp_path):
    for words in (b"27 size=999999999999999999\n", b"10 size=-5\n", b"9999999 path=x\n", b"20 GNU.sparse.map=0\n"):
        path = tmp_path / "x.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, kind, data in (("p", tarfile.XHDTYPE, words), ("a.mp4", tarfile.REGTYPE, b"x" * 600)):
                info = tarfile.TarInfo(name)
                info.type, info.size = kind, len(data)
                tar.addfile(info, io.BytesIO(data))
        with pytest.raises(DatasetError, match=r"x\.tar: the "):
            index_tars([path], as_is=True, workers=0)


def test_a_tar_that_goes_on_behind_its_end_is_named(media, tmp_path):
    """A zeroed header, and tars that were joined: the samples behind it are not lost without a word."""
    good = media["faststart.mp4"]
    for name in ("joined.tar", "zeroed.tar"):
        write_tar(tmp_path / name, [(f"{name[0]}{n}.mp4", good) for n in range(3)])
    joined, zeroed = ((tmp_path / name).read_bytes() for name in ("joined.tar", "zeroed.tar"))
    (tmp_path / "joined.tar").write_bytes(joined + joined)
    with tarfile.open(tmp_path / "zeroed.tar") as tar:
        at = tar.getmembers()[1].offset
    (tmp_path / "zeroed.tar").write_bytes(zeroed[:at] + bytes(1024) + zeroed[at + 1024 :])
    report = index_tars([tmp_path], as_is=True, workers=0)
    assert report.samples == 2  # the last one before the place is a reject too, for it may have lost members
    behind = {source for source, reason in rejects(tmp_path).items() if "continues after its end" in reason}
    assert behind == {"joined.tar", "zeroed.tar"}
