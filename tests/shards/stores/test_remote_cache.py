"""A remote store over a node's cache: other contents never mix, and damage of the remote file is found as without."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskstream.shards.errors import StoreError
from maskstream.shards.stores.base import Range, ShardFile
from maskstream.shards.stores.block_cache import BlockCache
from maskstream.shards.stores.block_sums import BLOCK_BYTES, BlockSums
from maskstream.shards.stores.remote import RemoteStore

from ...web_server import WebServer, serving

SIZE = 30 * BLOCK_BYTES + 5
TAR = "a.tar"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebServer]:
    (tmp_path / "served").mkdir()
    with serving(tmp_path / "served") as server:
        yield server


def written(server: WebServer, seed: int, name: str = TAR) -> bytes:
    """Writes a tar of random bytes and its sums."""
    data, sums = random.Random(seed).randbytes(SIZE), BlockSums()
    sums.update(data)
    (server.folder / name).write_bytes(data)
    (server.folder / name).with_suffix(".sums").write_bytes(sums.digest())
    return data


def store(server: WebServer, cache: BlockCache, sha256: str, name: str = TAR) -> RemoteStore:
    """A new store, with nothing in memory."""
    return RemoteStore(server.url, shards={name: ShardFile(SIZE, sha256)}, cache=cache)


@pytest.fixture
def cache(tmp_path: Path) -> BlockCache:
    return BlockCache(tmp_path / "cache", 1 << 20)


def test_what_was_read_is_not_asked_for_again(server: WebServer, cache: BlockCache) -> None:
    data = written(server, 1)
    ranges = [Range(TAR, 5000, 100), Range(TAR, 100_000, 20_000), Range(TAR, SIZE - 3, 3)]
    wanted = [data[offset : offset + size] for _, offset, size in ranges]
    assert store(server, cache, "one").read_many(ranges) == wanted
    server.requests.clear()
    again = store(server, cache, "one")
    assert again.read_many(ranges) == pickle.loads(pickle.dumps(again)).read_many(ranges) == wanted
    assert server.requests == []
    assert again.read(TAR, 0, SIZE) == data
    spans = [(one.begin, one.end) for one in server.requests]
    assert spans == [(0, 24 * BLOCK_BYTES)]


def test_a_file_that_was_made_again_with_the_same_size_is_another(server: WebServer, cache: BlockCache) -> None:
    for seed, sha256 in ((1, "one"), (2, "two"), (1, "one")):
        data = written(server, seed)
        assert store(server, cache, sha256).read(TAR, 0, SIZE) == data


def test_of_a_file_without_a_known_sha256_nothing_is_kept(server: WebServer, cache: BlockCache) -> None:
    for seed in (1, 2):
        data = written(server, seed, "b.tar")
        assert store(server, cache, "one").read("b.tar", 0, SIZE) == data
    assert list(cache.folder.iterdir()) == []


def test_damage_of_the_remote_file_is_found_and_not_kept(server: WebServer, cache: BlockCache) -> None:
    data = written(server, 1)
    (server.folder / TAR).write_bytes(data[:5000] + b"damage" + data[5006:])
    for _ in range(2):
        with pytest.raises(StoreError, match="bytes 4096 to 8192 differ from what was written"):
            store(server, cache, "one").read(TAR, 0, SIZE)
    assert store(server, cache, "one").read(TAR, 9000, 5000) == data[9000:14000]
    with pytest.raises(StoreError, match="bytes 4096 to 8192 differ from what was written"):
        store(server, cache, "one").read(TAR, 0, SIZE)
    (server.folder / TAR).write_bytes(data)
    assert store(server, cache, "one").read(TAR, 0, SIZE) == data


def test_sums_that_were_damaged_on_their_way_are_fetched_again(server: WebServer, cache: BlockCache) -> None:
    data, answers = written(server, 1), iter([lambda body: bytes(len(body))])

    def answer(request: object, body: bytes) -> bytes:
        return next(answers, lambda body: body)(body) if str(request).count(".sums") else body

    server.answer = answer
    assert store(server, cache, "one").read(TAR, 0, SIZE) == data
    server.requests.clear()
    assert store(server, cache, "one").read(TAR, 0, SIZE) == data
    assert server.requests == []
