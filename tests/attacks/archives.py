"""Damaged archives of raw data: each is whole, or is refused by name; no member is lost without a word.

A tar (of three forms, also compressed) or a zip of a known list of files is cut, flipped, zeroed, joined, or a part of
it is moved. "missed": it counts as whole, and lacks a file, or has another. "wrong": of a damaged one, a file is
given that it never had, or with other bytes than those that stand there. "hang": it is listed for more than `LIMIT_S`.
"""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import tarfile
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

import numpy as np

from maskstream.preprocess.raw.archive_list import OpenArchives, list_members
from maskstream.preprocess.raw.file_state import DamagedFileError
from maskstream.shards.errors import MaskstreamError

from ..preprocess.raw_files import tar_of, zip_of

BLOCK = 512
LIMIT_S = 30
FORMS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


class HangError(Exception):
    """An attack went on for too long."""


@contextmanager
def limited(seconds: int = LIMIT_S) -> Iterator[None]:
    """Raises HangError after a time."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def files_of(rng: np.random.Generator) -> dict[str, bytes]:
    """A few small files, some of them with long names."""
    names = [f"{'ab'[n % 2]}/p{n:02d}{'é' if rng.random() < 0.1 else ''}.png" for n in range(int(rng.integers(4, 14)))]
    if rng.random() < 0.3:
        names.append("deep/" * 12 + "x" * 90 + ".png")
    return {
        name: rng.integers(1, 256, int(rng.choice([1, 40, 511, 512, 700, 3000])), np.uint8).tobytes() for name in names
    }


Way = Callable[[np.random.Generator, bytes], bytes]


def flip(rng: np.random.Generator, data: bytes) -> bytes:
    changed = bytearray(data)
    for at in rng.integers(len(data) * 8, size=int(rng.choice([1, 1, 3, 30]))):
        changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def flip_header(rng: np.random.Generator, data: bytes) -> bytes:
    """A byte of a block that is a header."""
    headers = [at for at in range(0, len(data) - BLOCK, BLOCK) if data[at + 257 : at + 262] == b"ustar"]
    if not headers:
        return flip(rng, data)
    at = int(rng.choice(headers)) + int(rng.integers(BLOCK))
    return data[:at] + bytes([data[at] ^ int(rng.integers(1, 256))]) + data[at + 1 :]


def zero(rng: np.random.Generator, data: bytes) -> bytes:
    begin, end = sorted(rng.integers(len(data) + 1, size=2))
    return data[:begin] + bytes(end - begin) + data[end:]


def zero_blocks(rng: np.random.Generator, data: bytes) -> bytes:
    at = int(rng.integers(len(data) // BLOCK + 1)) * BLOCK
    end = min(len(data), at + BLOCK * int(rng.integers(1, 5)))
    return data[:at] + bytes(end - at) + data[end:]


def cut(rng: np.random.Generator, data: bytes) -> bytes:
    at = int(rng.integers(len(data)))
    return data[: at // BLOCK * BLOCK if rng.random() < 0.5 else at]


def hole(rng: np.random.Generator, data: bytes) -> bytes:
    begin, end = sorted(rng.integers(len(data) + 1, size=2))
    if rng.random() < 0.5:
        begin, end = begin // BLOCK * BLOCK, end // BLOCK * BLOCK
    return data[:begin] + data[end:]


def negative(rng: np.random.Generator, data: bytes) -> bytes:
    """A header with a right checksum declares a negative or a huge size."""
    headers = [at for at in range(0, len(data) - BLOCK, BLOCK) if data[at + 257 : at + 262] == b"ustar"]
    if not headers:
        return flip(rng, data)
    at = int(rng.choice(headers))
    header = bytearray(data[at : at + BLOCK])
    header[124:136] = bytes(
        rng.choice([b"\xff" * 10 + b"\xfe\x00", b"\x80" + b"\0" * 3 + b"\xff" * 8, b"77777777777\0"])
    )
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:at] + bytes(header) + data[at + BLOCK :]


def garbage(rng: np.random.Generator, data: bytes) -> bytes:
    return data + rng.bytes(int(rng.integers(1, 2000)))


def same(rng: np.random.Generator, data: bytes) -> bytes:
    return data


WAYS: tuple[Way, ...] = (
    *(flip, flip_header, flip_header, zero, zero_blocks, zero_blocks, cut, cut, hole, negative, garbage, same),
)


def has_its_sum(header: bytes) -> bool:
    """Whether a header has the sum that it declares; flips may cancel each other."""
    try:
        tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def is_unprotected(before: bytes, after: bytes, kind: str) -> bool:
    """Whether the damage is one that an archive cannot tell: nothing but zeros from some member on, whole blocks that
    are gone, flips of a header that leave its sum as it was, or bytes that have no checksum: those of members, of long
    names, and of the list of a zip.
    """
    if kind == "zip" or (
        (after[: len(before)] != before[: len(after)] and len(after) < len(before))
        and (len(before) - len(after)) % BLOCK == 0
    ):
        return True
    end = max((n for n, byte in enumerate(after) if byte), default=-1) + 1
    if len(after) - end >= 2 * BLOCK and after[:end].rstrip(b"\0") == before[:end].rstrip(b"\0"):
        return True
    changed = {at // BLOCK for at in range(min(len(before), len(after))) if before[at] != after[at]}
    extended, at = set[int](), 0
    while at < len(before):  # the headers with long names, which have no checksum, also behind the end of a joined tar
        if not any(before[at : at + BLOCK]):
            at += BLOCK
            continue
        header = tarfile.TarInfo.frombuf(before[at : at + BLOCK], "utf-8", "surrogateescape")
        size = -(-header.size // BLOCK)
        if at // BLOCK in changed and has_its_sum(after[at : at + BLOCK]):
            return True
        if header.type in (b"L", b"x"):
            extended |= set(range(at // BLOCK + 1, at // BLOCK + 1 + size))
        at += BLOCK * (1 + size)
    return bool(changed & extended)


def read(path: Path, members: dict[str, object], folder: Path) -> dict[str, bytes]:
    """The bytes of the members that can be read."""
    found: dict[str, bytes] = {}
    with closing(OpenArchives()) as archives:
        for name in members:
            try:
                archives.copy(path, name, folder / "copied")
            except (MaskstreamError, DamagedFileError):
                continue
            found[name] = (folder / "copied").read_bytes()
    return found


def end_of(path: Path, files: dict[str, bytes], changed: bool, unprotected: bool, folder: Path) -> str:
    """How an attack ends."""
    try:
        with limited():
            members = list_members(path)
            whole = True
    except MaskstreamError as error:
        assert path.name in str(error), error
        whole = False
    if not whole and not changed:
        return "wrong"
    try:
        with limited():
            members = members if whole else list_members(path, damaged=True)
    except MaskstreamError:
        return "refused"
    sizes = {name: member.size_bytes for name, member in members.items()}
    wanted = {name: len(data) for name, data in files.items()}
    if not unprotected:
        if whole and sizes != wanted:
            return "missed"
        if not sizes.items() <= wanted.items():
            return "wrong"
    elif whole and path.suffix == ".zip" and len(sizes) < len({*zipfile.ZipFile(path).namelist()}):
        return "missed"
    found = read(path, dict(members), folder)
    if not changed and found != files:
        return "wrong"
    return "whole" if whole else "refused"


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Damages `count` archives."""
    os.environ["MASKSTREAM_CACHE"] = str(folder / "cache")
    ends: Counter[str] = Counter()
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        files, kind = files_of(rng), str(rng.choice(["tar", "tar", "tar.gz", "zip"]))
        way, outside = WAYS[rng.integers(len(WAYS))], kind == "tar.gz" and rng.random() < 0.4
        if kind == "zip":
            data = zip_of(files, int(rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])))
            after = way(rng, data)
        else:
            form = int(rng.choice(FORMS))
            data = tar_of(files, form=form)
            if rng.random() < 0.1:  # joined
                items = [*files.items()]
                at = int(rng.integers(1, len(items)))
                data = tar_of(dict(items[:at]), form=form) + tar_of(dict(items[at:]), form=form)
            after = data if outside else way(rng, data)
        unprotected = after != data and is_unprotected(data, after, kind)
        joined = kind != "zip" and data.rstrip(b"\0") != tar_of(files, form=form).rstrip(b"\0")
        changed = after != data or joined
        if kind == "tar.gz":
            packed = gzip.compress(after, mtime=0)
            after = way(rng, packed) if outside else packed
            changed = changed or after != packed
        path = folder / f"{number}.{kind}"
        path.write_bytes(after)
        try:
            end = end_of(path, files, changed, unprotected, folder)
        except HangError:
            end = "hang"
        except Exception:
            traceback.print_exc()
            end = "foreign"
        ends[end] += 1
        if end not in ("whole", "refused"):
            print(f"{end}: seed {seed}, number {number}, {kind}, {way.__name__}, {len(files)} files")
        else:
            path.unlink()
        if number % 200 == 199:
            shutil.rmtree(folder / "cache", ignore_errors=True)
    return ends
