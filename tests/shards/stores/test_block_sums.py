"""Sums of blocks: of any pieces, in any range, and no changed byte gets past the store."""

import numpy as np
import pytest
import xxhash

from maskstream.shards.errors import StoreError
from maskstream.shards.stores.block_sums import BlockSums, compute_sums_size
from maskstream.shards.stores.local import LocalStore


def written(folder, size):
    """A tar of drawn bytes with its sums."""
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    path = folder / f"{size}.tar"
    path.write_bytes(data)
    sums = BlockSums()
    sums.update(data)
    path.with_suffix(".sums").write_bytes(sums.digest())
    return path, data


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 50_000])
def test_sums_are_those_of_each_block_however_the_bytes_come(size):
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, size, dtype=np.uint8).tobytes()
    expected = b"".join(xxhash.xxh3_64(data[at : at + 4096]).digest() for at in range(0, size, 4096))
    for most in (1, 700, 4096, 100_000) if size < 5000 else (700, 4096, 10_000, 100_000):
        sums, at = BlockSums(), 0
        while at < size:
            step = int(rng.integers(1, most + 1))
            sums.update(data[at : at + step])
            at += step
        assert sums.digest() == expected
    assert len(expected) == compute_sums_size(size)


def test_ranges_are_what_they_were_and_end_with_the_file(tmp_path):
    path, data = written(tmp_path, 20_001)
    store = LocalStore(tmp_path)
    for offset, size in [(0, 1), (0, 20_001), (4096, 4096), (4095, 2), (20_000, 1), (12_288, 7713), (777, 9999)]:
        assert store.read(path.name, offset, size) == data[offset : offset + size]
    with pytest.raises(StoreError, match="ends at byte 20001"):
        store.read(path.name, 19_000, 2000)


@pytest.mark.parametrize("at", [0, 4095, 4096, 9000, 20_000])
def test_a_changed_byte_is_told_by_every_range_of_its_block_and_by_no_other(tmp_path, at):
    path, data = written(tmp_path, 20_001)
    changed = bytearray(data)
    changed[at] ^= 4
    path.write_bytes(bytes(changed))
    store, block = LocalStore(tmp_path), at // 4096
    for other in range(5):
        offset = other * 4096 + 100
        if other == block:
            with pytest.raises(StoreError, match=rf"bytes {block * 4096} to \d+ differ from what was written"):
                store.read(path.name, offset, 10)
        else:
            assert store.read(path.name, offset, 10) == data[offset : offset + 10]


def test_cut_sums_check_what_they_have(tmp_path):
    path, data = written(tmp_path, 20_001)
    sums = path.with_suffix(".sums")
    sums.write_bytes(sums.read_bytes()[:20])
    store = LocalStore(tmp_path)
    assert store.read(path.name, 5000, 3000) == data[5000:8000]
    with pytest.raises(StoreError, match="differ from what was written"):
        store.read(path.name, 9000, 1)


def test_files_without_sums_are_read_as_they_are_and_the_log_says_so_once(tmp_path, caplog):
    path, data = written(tmp_path, 9000)
    path.with_suffix(".sums").unlink()
    for _ in range(2):
        assert LocalStore(tmp_path).read(path.name, 100, 5000) == data[100:5100]
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{tmp_path} has no {path.stem}.sums, so damaged reads are not detected")


def test_a_changed_bit_of_a_sum_is_named_as_damage_of_the_sums(tmp_path):
    path, data = written(tmp_path, 20_001)
    sums = path.with_suffix(".sums")
    kept = sums.read_bytes()
    for place, bit in ((8, 1), (15, 128), (11, 16)):
        sums.write_bytes(kept[:place] + bytes([kept[place] ^ bit]) + kept[place + 1 :])
        with pytest.raises(StoreError, match=r"the checksum of bytes 4096 to 8192 in its \.sums file is damaged"):
            LocalStore(tmp_path).read(path.name, 5000, 10)
        assert LocalStore(tmp_path).read(path.name, 9000, 10) == data[9000:9010]


def test_packet_tables_have_sums_too(tmp_path):
    data = np.random.default_rng(0).bytes(9000)
    sums = BlockSums()
    sums.update(data)
    (tmp_path / "x.packets").write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    (tmp_path / "x.packets.sums").write_bytes(sums.digest())
    store = LocalStore(tmp_path)
    assert store.read("x.packets", 100, 3000) == data[100:3100]
    with pytest.raises(StoreError, match=r"x\.packets: bytes 4096 to 8192 differ from what was written"):
        store.read("x.packets", 4990, 20)
