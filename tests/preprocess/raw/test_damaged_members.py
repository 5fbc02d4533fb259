"""A member of a zip that is damaged, or packed to fill the disk, is one reject; the others are samples."""

import io
import struct
import zipfile

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from maskstream.preprocess import make_shards
from maskstream.preprocess.raw.archive import Archive
from maskstream.preprocess.raw.archive_list import list_members
from maskstream.preprocess.raw.file_state import DamagedFileError
from maskstream.shards.errors import DatasetError

from ..raw_files import put, tar_of, zip_of

pytestmark = pytest.mark.usefixtures("cache")


def picture(n):
    return cv2.imencode(".png", np.random.default_rng(n).integers(0, 255, (20, 24, 3), np.uint8))[1].tobytes()


def pack(path, form=zipfile.ZIP_DEFLATED):
    put(path, zip_of({f"{'ab'[n % 2]}/{n}.png": picture(n) for n in range(6)}, form))
    return bytearray(path.read_bytes())


def place(data, n, mark=b"PK\x01\x02"):
    """Where the n-th header of a zip begins: of its list, or of the members themselves."""
    at = -1
    for _ in range(n + 1):
        at = data.index(mark, at + 1)
    return at


def flip(data):
    data[place(data, 2, b"PK\x03\x04") + 400] ^= 0xFF


def shrink(data):
    struct.pack_into("<I", data, place(data, 2) + 24, 10)


def grow(data):
    struct.pack_into("<I", data, place(data, 2) + 24, 10_000)


def overlap(data):
    struct.pack_into("<I", data, place(data, 2) + 42, 0)


def other_method(data):
    struct.pack_into("<H", data, place(data, 2) + 10, 97)


@pytest.mark.filterwarnings("ignore:Overlapped entries")  # of Python 3.13, when the sound one of two is opened
@pytest.mark.parametrize("damage", [flip, shrink, grow, overlap, other_method])
@pytest.mark.parametrize("form", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_one_reject(tmp_path, damage, form):
    data = pack(tmp_path / "raw/a.zip", form)
    damage(data)
    (tmp_path / "raw/a.zip").write_bytes(data)
    for _ in range(2):  # the second time, it is still as it was
        report = make_shards("image-folder", tmp_path / "raw", tmp_path / "out", workers=0, max_rejects=1, pauses_s=())
        assert report.splits["train"].counts["samples"] == 5
    (reject,) = pq.read_table(tmp_path / "out/train/rejects.parquet").to_pylist()
    assert reject["source"] == "a/2.png"
    assert "a.zip" in reject["reason"]


def test_a_date_that_is_none_is_that_of_the_first_day(tmp_path):
    data = pack(tmp_path / "raw/a.zip")
    struct.pack_into("<HH", data, place(data, 2) + 12, 0xFFFF, 0)
    (tmp_path / "raw/a.zip").write_bytes(data)
    assert list_members(tmp_path / "raw/a.zip")["a/2.png"].mtime_ns == 315_532_800 * 10**9


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_member_that_would_fill_the_disk_is_not_unpacked(tmp_path, monkeypatch, name):
    monkeypatch.setattr("maskstream.preprocess.raw.archive._FEW_BYTES", 1 << 20)
    path, size = tmp_path / name, 8 << 20
    files = {"a.png": bytes(size)}
    path.write_bytes(zip_of(files, zipfile.ZIP_DEFLATED) if name == "a.zip" else tar_of(files, "w:gz"))
    archive = Archive(path)
    (member,) = archive.contents().members.values()
    out = io.BytesIO()
    with pytest.raises(DamagedFileError, match=rf"would be {size} bytes, of \d+ in {name}"):
        archive.copy(member, out)
    assert not out.getvalue()
    archive.close()


def test_a_name_that_no_file_can_have_is_refused(tmp_path):
    put(tmp_path / "a.zip", zip_of({f"a/{'x' * 300}.png": picture(0)}))
    with pytest.raises(DatasetError, match=r"a\.zip contains a file whose name 'x+'\.\.\. has more than 255 bytes"):
        list_members(tmp_path / "a.zip")


def test_a_folder_in_an_archive_may_look_like_another_archive(tmp_path):
    pack(tmp_path / "raw/a.zip")
    with zipfile.ZipFile(tmp_path / "raw/a.zip", "a") as packed:
        packed.writestr("b/b.tar!/q.png", picture(9))
    report = make_shards("image-folder", tmp_path / "raw", tmp_path / "out", workers=0)
    assert report.splits["train"].counts == {**report.splits["train"].counts, "samples": 7, "rejects": 0}
