"""Nobody else can put files where a cache is read from."""

import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from maskstream.shards.format import index_cache
from maskstream.shards.own_folder import make_own_folder
from maskstream.shards.stores.block_cache import BlockCache

OTHER = 65533
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


def mode(folder: Path) -> int:
    return folder.stat().st_mode & 0o777


def test_a_missing_folder_is_made_for_its_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert make_own_folder(tmp_path / "a/cache") == tmp_path / "a/cache"
    finally:
        os.umask(before)
    assert mode(tmp_path / "a/cache") == 0o700


@pytest.mark.parametrize("bits", [0o777, 0o1777, 0o775, 0o702])
def test_a_folder_to_which_others_may_write_gets_one_that_is_ours(tmp_path: Path, bits: int) -> None:
    tmp_path.chmod(bits)
    own = make_own_folder(tmp_path)
    assert own == tmp_path / f"uid-{os.geteuid()}"
    assert mode(own) == 0o700
    assert make_own_folder(own) == own
    own.chmod(0o755)
    assert make_own_folder(tmp_path) == own


def test_a_folder_that_others_made_ready_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / f"uid-{os.geteuid()}").mkdir()
    (tmp_path / f"uid-{os.geteuid()}").chmod(0o777)
    with pytest.raises(
        ValueError, match=r"has mode 0777: others could put files there .* choose a different cache folder"
    ):
        make_own_folder(tmp_path)


@as_root
def test_a_folder_of_another_user_is_not_ours(tmp_path: Path) -> None:
    os.chown(tmp_path, OTHER, OTHER)
    own = make_own_folder(tmp_path)
    assert own.name == "uid-0"
    os.chown(own, OTHER, OTHER)
    with pytest.raises(ValueError, match="belongs to user 65533"):
        make_own_folder(tmp_path)


def test_blocks_are_not_read_from_where_others_may_write(tmp_path: Path) -> None:
    planted = BlockCache(tmp_path, 1 << 20)
    assert planted.whole("file", lambda: b"forged") == b"forged"
    tmp_path.chmod(0o777)
    cache = BlockCache(tmp_path, 1 << 20)
    assert cache.whole("file", lambda: b"right") == b"right"
    assert cache.folder.parent == tmp_path
    assert pickle.loads(pickle.dumps(cache)).folder == cache.folder


def test_indexes_are_not_read_from_where_others_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(index_cache.CACHE, str(tmp_path))
    monkeypatch.setattr(index_cache, "SMALL_BYTES", 0)

    def index(value: int) -> int:
        def unpack(_: object, stream: object) -> None:
            writer = index_cache.IndexWriter(stream)  # type: ignore[arg-type]
            writer.put("numbers", np.int64, [np.array([value])])
            writer.finish({"key": "k"})

        return int(index_cache.open_cached_index("k", 1, unpack).array("numbers")[0])

    assert (index(1), index(2)) == (1, 1)
    (tmp_path / "indexes").chmod(0o777)
    assert (index(3), index(4)) == (3, 3)
    (tmp_path / f"indexes/uid-{os.geteuid()}").chmod(0o777)
    with caplog.at_level(logging.WARNING):
        assert index(5) == 5
    assert "others could put files there" in caplog.text


KERNEL = """
from maskstream.shards.jit import kernel

@kernel
def doubled(value):
    return 2 * value
print(doubled(21), sum(doubled.stats.cache_hits.values()))
"""


class Planted:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.slow
def test_kernels_are_not_loaded_from_where_others_may_write(tmp_path: Path) -> None:
    script, kept, mark = tmp_path / "kernels.py", tmp_path / "kept", tmp_path / "mark"
    script.write_text(KERNEL)
    env = {**os.environ, "NUMBA_CACHE_DIR": str(kept)}

    def run() -> list[str]:
        done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert (run(), run()) == (["42", "0"], ["42", "1"])
    files = list(kept.rglob("*.nbi"))
    assert len(files) == 1
    files[0].write_bytes(pickle.dumps(Planted(mark)))
    files[0].parent.chmod(0o777)
    assert (run(), run()) == (["42", "0"], ["42", "1"])
    assert not mark.exists()
