"""A tar that ends early is damage: it is named, with what can be read, and lost members are never passed over."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.preprocess.datasets import DATASETS
from maskstream.preprocess.job.shards import find_dataset
from maskstream.preprocess.raw import archive_list
from maskstream.preprocess.raw.archive_list import OpenArchives, list_archive, list_members
from maskstream.preprocess.raw.tree import open_raw_tree
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.rejects import read_rejects
from maskstream.shards.stores.local import LocalStore

from ..job.picture_job import run
from ..raw_files import tar_of, zip_of

pytestmark = pytest.mark.usefixtures("cache")

N = 12
BLOCK = 512


def picture(number: int) -> bytes:
    rng = np.random.default_rng(number)
    return bytes(cv2.imencode(".png", rng.integers(0, 255, (8, 8, 3), np.uint8))[1].tobytes())


FILES = {f"{'ab'[n % 2]}/p{n:02d}.png": picture(n) for n in range(N)}


WHOLE = tar_of(FILES)
with tarfile.open(fileobj=io.BytesIO(WHOLE)) as opened:
    MIDDLE = opened.getmembers()[N // 2].offset
END = max(n for n, byte in enumerate(WHOLE) if byte) // BLOCK * BLOCK + BLOCK


def header_flipped(data: bytes) -> bytes:
    return data[: MIDDLE + 150] + bytes([data[MIDDLE + 150] ^ 255]) + data[MIDDLE + 151 :]


def header_zeroed(data: bytes) -> bytes:
    return data[:MIDDLE] + bytes(2 * BLOCK) + data[MIDDLE + 2 * BLOCK :]


def negative(data: bytes) -> bytes:
    header = bytearray(data[MIDDLE : MIDDLE + BLOCK])
    header[124:136] = b"\xff" * 10 + b"\xfe\x00"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:MIDDLE] + bytes(header) + data[MIDDLE + BLOCK :]


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "header flipped": (header_flipped, N - 1),
    "header zeroed": (header_zeroed, N - 1),
    "cut at a member": (lambda data: data[:MIDDLE], N // 2),
    "cut in a header": (lambda data: data[: MIDDLE + 200], N // 2),
    "cut in a member": (lambda data: data[: MIDDLE + BLOCK + 10], N // 2),
    "cut before the end": (lambda data: data[:END], N),
    "single block of zeros": (lambda data: data[: END + BLOCK], N),
    "joined": (lambda data: tar_of(dict([*FILES.items()][:5])) + tar_of(dict([*FILES.items()][5:])), N),
    "negative size": (negative, N - 1),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_with_what_can_be_read(tmp_path: Path, name: str, packed: bool) -> None:
    damage, readable = DAMAGE[name]
    path = tmp_path / ("a.tar.gz" if packed else "a.tar")
    data = damage(WHOLE)
    path.write_bytes(gzip.compress(data) if packed else data)
    says = rf"{path.name} is damaged, or not an archive \(.*{readable} of its files can be read, .*--damage keep"
    with pytest.raises(DatasetError, match=says):
        list_members(path)
    found = list_members(path, damaged=True)
    assert len(found) == readable
    archives = OpenArchives()
    for member in found:
        archives.copy(path, member, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == FILES[member]
    archives.close()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_whole_tars_are_whole(tmp_path: Path, form: int) -> None:
    long = FILES | {"x" * 90 + "/" + "y" * (90 if form == tarfile.USTAR_FORMAT else 200) + ".png": b"1"}
    if form == tarfile.PAX_FORMAT:
        long |= {"b/ü?.png": b"2"}
    (tmp_path / "a.tar").write_bytes(tar_of(long, form=form))
    found = list_archive(tmp_path / "a.tar")
    assert found.damage == ""
    assert {name: member.size_bytes for name, member in found.members.items()} == {k: len(v) for k, v in long.items()}
    assert {member.mtime_ns for member in found.members.values()} == {10**18}


def test_a_name_that_may_be_cut_is_not_taken(tmp_path: Path) -> None:
    """Where the header with a long name is damaged, the next one has its begin only."""
    data = bytearray(tar_of({"a.png": b"1", "b/" + "y" * 200 + ".png": b"2", "c.png": b"3"}))
    data[2 * BLOCK + 150] ^= 255
    (tmp_path / "a.tar").write_bytes(data)
    assert [*list_members(tmp_path / "a.tar", damaged=True)] == ["a.png", "c.png"]


def test_zips_whose_list_is_not_whole_are_named(tmp_path: Path) -> None:
    items = [*FILES.items()]
    (tmp_path / "joined.zip").write_bytes(zip_of(dict(items[:5])) + zip_of(dict(items[5:])))
    counted = bytearray(zip_of(FILES))
    counted[-12:-10] = (N + 1).to_bytes(2, "little")
    (tmp_path / "counted.zip").write_bytes(counted)
    stub = b"#!/bin/sh\nexit\n" + zip_of(FILES)
    (tmp_path / "stub.zip").write_bytes(stub)
    for name, says in (
        ("joined", "does not cover the data before"),
        ("counted", "has 12 files, but its end record declares 13"),
    ):
        with pytest.raises(DatasetError, match=rf"{name}\.zip is damaged, .*{says}"):
            list_members(tmp_path / f"{name}.zip")
    assert len(list_members(tmp_path / "joined.zip", damaged=True)) == N - 5
    assert len(list_members(tmp_path / "stub.zip")) == N


def test_tars_of_zeros_and_of_parts_of_blocks_are_damaged(tmp_path: Path) -> None:
    (tmp_path / "zeros.tar").write_bytes(bytes(10240))
    (tmp_path / "part.tar").write_bytes(WHOLE[:MIDDLE] + WHOLE[END + 100 :])
    for name, says in (("zeros", "contains only zeros"), ("part", "so part of it is missing; 6 of its files")):
        with pytest.raises(DatasetError, match=rf"{name}\.tar is damaged, or not an archive .*{says}"):
            list_members(tmp_path / f"{name}.tar")


def test_a_tail_of_zeros_is_a_download_that_was_not_finished(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(WHOLE + bytes((1 << 20) - len(WHOLE)))
    assert len(list_members(tmp_path / "a.tar")) == N
    (tmp_path / "b.tar").write_bytes(WHOLE[:MIDDLE] + bytes(2 << 20))
    with pytest.raises(DatasetError, match="an unfinished download; 6 of its files"):
        list_members(tmp_path / "b.tar")


def test_a_job_fails_or_keeps_what_can_be_read(tmp_path: Path) -> None:
    root, out = tmp_path / "raw", tmp_path / "out"
    root.mkdir()
    (root / "a.tar").write_bytes(header_flipped(WHOLE))
    with pytest.raises(DatasetError, match=r"a\.tar is damaged, .*11 of its files can be read, 6 of them before"):
        run(root, out)
    assert not out.exists()
    report = run(root, out, damage="keep", max_rejects=0)
    assert (report.splits["train"].counts["samples"], report.splits["train"].counts["rejected"]) == (11, {"archive": 1})
    manifest = Manifest.load(out / "train")
    (reject,) = read_rejects(LocalStore(out / "train"), manifest.info)
    assert (reject.source, reject.stage) == ("a.tar", "archive")
    assert "no header at byte" in reject.reason
    assert run(root, out, damage="keep", max_rejects=0).splits["train"].state == "already finished"


def test_the_command_keeps_what_can_be_read_and_leaves_root_only_if_told(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    root.mkdir()
    (tmp_path / "c.tar").write_bytes(header_zeroed(WHOLE))
    (root / "c.tar").symlink_to(tmp_path / "c.tar")
    words = ["shards", "image-folder", "--root", str(root), "--out", str(tmp_path / "out"), "--workers", "1"]
    for more, says in (([], "is damaged"), (["--damage", "keep"], "not below")):
        failed = CliRunner().invoke(app, [*words, *more])
        assert isinstance(failed.exception, DatasetError)
        assert says in str(failed.exception)
    done = CliRunner().invoke(app, [*words, "--damage", "keep", "--outside-root"])
    assert done.exit_code == 0, done.output
    assert "samples 11" in done.output


def test_a_list_of_an_older_version_is_made_again(tmp_path: Path, cache: Path) -> None:
    """It did not know damage, and half of the members may be missing."""
    path = tmp_path / "a.tar"
    path.write_bytes(header_flipped(WHOLE))
    with pytest.raises(DatasetError):
        list_members(path)
    (listed,) = (cache / "archives").glob("*.json")
    facts = json.loads(listed.read_bytes())
    listed.write_text(json.dumps({"gzip": False, "members": facts["members"][:3]}))
    archive_list._remembered.cache_clear()
    with pytest.raises(DatasetError, match="11 of its files"):
        list_members(path)


def test_a_damaged_index_is_made_again(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(WHOLE))
    assert len(list_members(path)) == N
    (index,) = (cache / "archives").glob("*.gzindex")
    index.write_bytes(bytes(index.stat().st_size))
    archive_list._remembered.cache_clear()
    archives = OpenArchives()
    archives.copy(path, "a/p00.png", tmp_path / "out")
    archives.close()
    assert (tmp_path / "out").read_bytes() == FILES["a/p00.png"]


def test_only_lists_that_a_dataset_reads_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "raw"
    root.mkdir()
    (root / "a.tar").write_bytes(tar_of(FILES | {"notes.txt": b"x" * 10_000, "list.csv": b"path\na/p00.png\n"}))
    copied: list[str] = []
    copy = OpenArchives.copy

    def told(self: OpenArchives, path: Path, name: str, to: Path | None) -> object:
        copied.append(name)
        return copy(self, path, name, to)

    monkeypatch.setattr(OpenArchives, "copy", told)
    with open_raw_tree(root) as tree:
        assert len(find_dataset(tree, DATASETS["image-folder"]).splits["train"]) == 1
    assert copied == ["list.csv"]


def test_trim_is_for_encoders_that_can(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    root.mkdir()
    (root / "a.tar").write_bytes(tar_of(FILES))
    with pytest.raises(ValueError, match="damage"):
        run(root, tmp_path / "out", damage="trim")
    assert not (tmp_path / "out").exists()
