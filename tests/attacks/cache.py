"""Four processes read through one node cache while they are killed and its files are damaged: no byte may be wrong.

Files are punched, flipped, cut, swapped and unlinked, and the disk is full from time to time: a tmpfs that is smaller
than the limit, or, where none may be mounted, a limit on the size of files.
"""

from __future__ import annotations

import ctypes
import os
import random
import resource
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np

from maskstream.shards.stores.block_cache import BlockCache
from maskstream.shards.stores.block_sums import BLOCK_BYTES, SUM_BYTES, sum_blocks

from .kills import FORKS

READERS = 4
FILES, MOST_BLOCKS, READ_BLOCKS = 24, 200, 40
LIMIT_BYTES = 8 << 20
SMALL_DISK_BYTES = 4 << 20
STALL_S = 60
ENDS = ("cached", "fetched", "wrong")
_KEEP_SIZE, _PUNCH_HOLE = 1, 2


class File:
    """A remote file. Some of its blocks are zeros, as holes are; two files in a row have one location."""

    def __init__(self, number: int) -> None:
        rng = np.random.default_rng(number)
        size = int(rng.integers(1, MOST_BLOCKS * BLOCK_BYTES))
        data = bytearray(rng.bytes(size))
        for first in rng.integers(0, MOST_BLOCKS, 5).tolist():
            data[first * BLOCK_BYTES : (first + 3) * BLOCK_BYTES] = bytes(3 * BLOCK_BYTES)
        self.data = bytes(data[:size])
        self.sums = sum_blocks(memoryview(self.data))
        self.name = f"s3://b/{number // 2}.tar {number}"


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Lets the readers do `count` reads: three quarters on a disk with room, the others on a small one."""
    ends = _tortured(count - count // 4, seed, folder / "cache", folder, file_bytes=None)
    with _small_disk(folder / "small") as mounted:
        ends += _tortured(
            count // 4, seed + 1, folder / "small", folder, file_bytes=None if mounted else 20 * BLOCK_BYTES
        )
    return ends


def _tortured(count: int, seed: int, cache: Path, folder: Path, *, file_bytes: int | None) -> Counter[str]:
    tally = np.memmap(folder / f"tally-{seed}", np.int64, "w+", shape=(READERS, len(ENDS)))
    rng, lives, over = random.Random(seed), 0, 0
    done = Counter[str]()
    readers = []

    def start(reader: int) -> None:
        nonlocal lives
        arguments = (cache, Path(str(tally.filename)), reader, f"{seed} {lives}", count // READERS, file_bytes)
        process = FORKS.Process(target=_read, args=arguments)
        process.start()
        readers[reader : reader + 1] = [process]
        lives += 1

    for reader in range(READERS):
        start(reader)
    begun, last = time.monotonic(), -1
    while any(process.is_alive() for process in readers):
        time.sleep(rng.expovariate(50))
        if (now := int(tally.sum())) != last:
            begun, last = time.monotonic(), now
        elif time.monotonic() - begun > STALL_S:
            for process in readers:
                process.kill()
            return Counter(hang=count)
        if rng.random() < 0.1:
            victim = rng.randrange(READERS)
            readers[victim].kill()
            readers[victim].join()
            start(victim)
            done["kills"] += 1
        else:
            done[_damage(cache, rng)] += 1
        over = max(over, BlockCache(cache, LIMIT_BYTES).measure_used_bytes())
    found = Counter(dict(zip(ENDS, tally.sum(0).tolist(), strict=True)))
    if failed := [process.exitcode for process in readers if process.exitcode]:
        print(f"foreign: seed {seed}: readers ended with {failed}")
        found["foreign"] += 1
    if over > LIMIT_BYTES:
        print(f"wrong: seed {seed}: the cache grew to {over} bytes, its limit is {LIMIT_BYTES}")
        found["wrong"] += 1
    if found["wrong"]:
        print(f"wrong: seed {seed}: {found['wrong']} reads")
    print(f"seed {seed}: {dict(sorted(done.items()))}; at most {over} of {LIMIT_BYTES} bytes")
    found["cached"] += count - found.total()  # the remainder of the division by the readers
    return +found


def _read(cache_folder: Path, tally_path: Path, reader: int, seed: str, count: int, file_bytes: int | None) -> None:
    """Reads until this reader has `count` reads, over all its lives."""
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    tally = np.memmap(tally_path, np.int64, "r+", shape=(READERS, len(ENDS)))[reader]
    cache, files, rng = BlockCache(cache_folder, LIMIT_BYTES), [File(n) for n in range(FILES)], random.Random(seed)
    cache._warned = True  # the disk is full on purpose
    fetched: list[int] = []
    while int(tally.sum()) < count:
        file = files[min(int(rng.expovariate(0.15)), FILES - 1)]
        blocks = len(file.sums) // SUM_BYTES
        first = rng.randrange(blocks)
        stop = min(first + rng.randint(1, READ_BLOCKS), blocks)
        begin, end = first * BLOCK_BYTES, min(stop * BLOCK_BYTES, len(file.data))

        def fetch(begin: int, size: int, data: bytes = file.data) -> bytes:
            fetched.append(size)
            return data[begin : begin + size]

        fetched.clear()
        if rng.random() < 0.05:
            right = cache.whole(f"{file.name} sums", partial(_all, fetched, file.sums)) == file.sums
        else:
            sums = file.sums[first * SUM_BYTES : stop * SUM_BYTES]
            right = cache.read(file.name, begin, end - begin, sums, fetch) == file.data[begin:end]
        tally[ENDS.index("wrong" if not right else "fetched" if fetched else "cached")] += 1


def _all(fetched: list[int], sums: bytes) -> bytes:
    fetched.append(len(sums))
    return sums


def _damage(cache: Path, rng: random.Random) -> str:
    """Does something to a random file of the cache; returns what."""
    files = sorted(cache.iterdir()) if cache.is_dir() else []
    what = rng.choice(("holes", "flips", "flips", "cuts", "swaps", "unlinks"))
    with suppress(OSError):
        if not files:
            return "nothing"
        path = rng.choice(files)
        if what == "unlinks":
            path.unlink()
            return what
        with path.open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            at = rng.randrange(max(size, 1))
            if what == "holes":
                _punch(file.fileno(), at, rng.randint(1, 10 * BLOCK_BYTES))
            elif what == "flips":
                byte = os.pread(file.fileno(), 1, at)
                os.pwrite(file.fileno(), bytes(one ^ 1 << rng.randrange(8) for one in byte), at)
            elif what == "cuts":
                file.truncate(at)
            else:
                os.pwrite(file.fileno(), rng.choice(files).read_bytes()[at : at + 10 * BLOCK_BYTES], at)
    return what


def _punch(descriptor: int, at: int, size: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, ctypes.c_longlong(at), ctypes.c_longlong(size))


@contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    """A small tmpfs at `folder`, or False where none may be mounted."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", folder]
    try:
        mounted = subprocess.run(["mount", *options], capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", folder], capture_output=True, check=True)
