"""The store of local files, to its very end."""

from __future__ import annotations

import errno
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest

from maskstream.shards.errors import MissingFileError, OutageError, StoreError
from maskstream.shards.stores import local
from maskstream.shards.stores.base import Range, Store
from maskstream.shards.stores.block_sums import sum_blocks
from maskstream.shards.stores.local import LocalStore

OUTLIVES_ITS_MODULES = """
import os, sys
from pathlib import Path
from maskstream.shards.stores.local import LocalStore

path = Path(sys.argv[1])
os.store = LocalStore(path.parent)
print(os.store.read(path.name, 0, 3))
"""


def test_files_that_are_open_when_the_interpreter_ends_are_closed_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"whole")
    words = [sys.executable, "-c", OUTLIVES_ITS_MODULES, path]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "b'who'\n", "")


def test_names_are_paths_from_the_folder(tmp_path: Path) -> None:
    for name in ("split/b.tar", "split/a.tar", "split/a.idx", "split/deep/a.tar", "outside.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    store: Store = LocalStore(tmp_path / "split", outside=True)
    assert store.names() == ["a.idx", "a.tar", "b.tar", "deep/a.tar"]
    assert store.names("a.") == ["a.idx", "a.tar"]
    assert store.names("deep/") == ["deep/a.tar"]
    assert store.names("nowhere/") == []
    assert store.size("deep/a.tar") == len("split/deep/a.tar")
    inside = LocalStore(tmp_path / "split")
    assert pickle.loads(pickle.dumps(store)).size("../outside.tar") == len("outside.tar")
    for other in (inside, pickle.loads(pickle.dumps(inside))):
        assert other.size("deep/a.tar") == len("split/deep/a.tar")
        for name in ("../outside.tar", str(tmp_path / "outside.tar"), "deep/../../outside.tar"):
            with pytest.raises(StoreError, match=r"cannot be opened .leads outside .*split, to .*/outside\.tar"):
                other.size(name)
    assert store.read_many([Range("../outside.tar", 3, 4), Range("b.tar", 0, 5)]) == [b"side", b"split"]
    with pytest.raises(StoreError, match=r"c\.tar cannot be opened"):
        store.size("c.tar")


@pytest.mark.parametrize("summed", [True, False])
def test_ranges_that_are_read_together_are_those_that_are_read_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, summed: bool
) -> None:
    draw = random.Random(3)
    for name in ("a", "b"):
        data = draw.randbytes(50_000)
        (tmp_path / f"{name}.tar").write_bytes(data)
        if summed:
            (tmp_path / f"{name}.sums").write_bytes(sum_blocks(memoryview(data)))
    store = LocalStore(tmp_path)
    for _ in range(50):
        ranges = [
            Range(
                draw.choice(("a.tar", "b.tar")),
                at := draw.randrange(50_000),
                min(draw.choice((0, 9, 5000)), 50_000 - at),
            )
            for _ in range(9)
        ]
        assert store.read_many(ranges) == [store.read(*one) for one in ranges]
    for wrong in (Range("a.tar", -1, 5), Range("a.tar", 9, -1), Range("b.tar", 49_999, 2), Range("c.tar", 0, 1)):
        with pytest.raises(StoreError) as alone:
            store.read(*wrong)
        with pytest.raises(StoreError) as together:
            store.read_many([Range("a.tar", 4, 9), wrong, Range("a.tar", 0, 9)])
        assert str(together.value) == str(alone.value)
    reads: list[int] = []
    read = local._range

    def counted(file: local._File, offset: int, size: int) -> bytes:
        reads.append(size)
        return read(file, offset, size)

    monkeypatch.setattr(local, "_range", counted)
    store.read_many(
        [
            Range("a.tar", 4096, 1),
            Range("a.tar", 12_288, 5),
            Range("a.tar", 20_480, 5),
            Range("a.tar", 8191, 1),
            Range("a.tar", 8192, 4096),
        ]
    )
    assert reads == ([12_288, 4096] if summed else [8197, 5])


@pytest.mark.parametrize(("offset", "size"), [(0, 1 << 62), (1 << 62, 1), (-1, 5), (0, -1), (9, 1), (1 << 70, 1 << 70)])
def test_bytes_that_a_file_does_not_have_take_no_memory(offset: int, size: int, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"ninebytes")
    with pytest.raises(StoreError, match=r"a\.tar.* were requested"):
        LocalStore(tmp_path).read("a.tar", offset, size)


def test_names_that_no_file_can_have_are_refused(tmp_path: Path) -> None:
    for name in ("a\0.tar", "\ud800.tar"):
        with pytest.raises(StoreError, match="not a valid file name"):
            LocalStore(tmp_path).size(name)


FEW_FILES = """
import os, resource, sys
from maskstream.shards.errors import OutageError
from maskstream.shards.stores.local import LocalStore

def opened():
    return len(os.listdir("/proc/self/fd")) - 1

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
before, stores = opened(), [LocalStore(sys.argv[1]) for _ in range(9)]
for n in range(72):
    for store in stores:
        assert store.read(f"{n}.tar", 0, 9) == b"%09d" % n
kept = opened() - before
taken = [os.dup(0) for _ in range(256 - opened())]
assert stores[0].read("0.tar", 0, 9) == b"000000000"  # the files that are kept are closed for it
stores.clear()
taken += [os.dup(0) for _ in range(256 - opened())]
try:
    LocalStore(sys.argv[1]).read("1.tar", 0, 9)
except OutageError as error:
    print(kept, error)
"""


def test_all_stores_of_a_process_keep_few_files_open(tmp_path: Path) -> None:
    for n in range(72):
        (tmp_path / f"{n}.tar").write_bytes(b"%09d" % n)
        (tmp_path / f"{n}.sums").write_bytes(sum_blocks(memoryview(b"%09d" % n)))
    words = [sys.executable, "-c", FEW_FILES, tmp_path]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert ended.stderr == ""
    assert ended.stdout == f"128 {tmp_path}/1.tar cannot be opened now (Too many open files); raise `ulimit -n`\n"


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EMFILE, errno.ETIMEDOUT, errno.EACCES])
def test_what_no_bytes_can_cause_is_an_outage(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.bin").write_bytes(b"whole")
    store = LocalStore(tmp_path)
    assert store.read("a.bin", 0, 2) == b"wh"

    def fail(*_: object, **__: object) -> bytes:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", fail)
        with pytest.raises(OutageError, match=f"a.bin cannot be read at byte 1 now .{os.strerror(code)}"):
            store.read("a.bin", 1, 2)
        patched.setattr(os, "open", fail)
        for read in (lambda: LocalStore(tmp_path).size("a.bin"), lambda: store.whole("a.bin", 9)):
            with pytest.raises(OutageError, match=os.strerror(code)):
                read()
    assert store.read("a.bin", 1, 2) == b"ho"
    with pytest.raises(MissingFileError):
        store.size("b.bin")
