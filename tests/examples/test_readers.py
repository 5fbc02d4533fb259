"""Others' readers over the tars: each sample once, with the frames that PyAV decodes."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

from maskstream.shards.format.manifest import Manifest

from .running import EXAMPLES


def example(name: str) -> ModuleType:
    """A file of examples/ as a module."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, EXAMPLES / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pictures(split: Path) -> dict[str, np.ndarray]:
    """The first frame of each sample, float (64, 64, 3), by key."""
    manifest, found = Manifest.load(split), {}
    for number in range(len(manifest)):
        with av.open(io.BytesIO(manifest.store.read(*manifest.member(number, "mp4")))) as video:
            frame = next(video.decode(video=0))
        found[manifest.key(number)] = frame.to_ndarray(width=64, height=64, format="rgb24").astype(float)
    return found


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves tars open
def test_webdataset_reads_every_sample_once(split: Path) -> None:
    batches = list(example("readers/webdataset_tars.py").batches(split))
    assert [len(batch) for batch in batches] == [4, 4, 3]
    wanted = pictures(split)
    samples = [one for batch in batches for one in batch]
    assert sorted(one["key"] for one in samples) == sorted(wanted)
    for one in samples:
        assert one["video"].shape == (8, 64, 64, 3)
        assert np.abs(one["video"][0] - wanted[one["key"]]).mean() < 10
        assert one["about"]["n_frames"] >= 40


SPDL = """
import importlib.util, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from libraries import start_with_pyav_libraries
start_with_pyav_libraries(Path(sys.argv[4]) / "links")
import numpy as np
spec = importlib.util.spec_from_file_location("spdl_tars", sys.argv[2])
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)
np.savez(Path(sys.argv[4]) / "batches.npz", *example.batches(Path(sys.argv[3])))
"""
"""SPDL takes FFmpeg's libraries of the system, which few machines have; so it gets those of PyAV's wheel."""


def test_spdl_decodes_every_sample_in_the_order_of_the_manifest(split: Path, tmp_path: Path) -> None:
    pytest.importorskip("spdl.io")
    paths = [EXAMPLES.parent / "benchmarks", EXAMPLES / "readers/spdl_tars.py", split, tmp_path]
    done = subprocess.run([sys.executable, "-c", SPDL, *map(str, paths)], capture_output=True, text=True)
    if "Failed to import libspdl" in done.stderr:
        pytest.skip("SPDL finds no FFmpeg that it knows: apt-get install ffmpeg")
    assert done.returncode == 0, done.stderr
    batches = list(np.load(tmp_path / "batches.npz").values())
    assert [batch.shape for batch in batches] == [(4, 8, 64, 64, 3), (4, 8, 64, 64, 3), (3, 8, 64, 64, 3)]
    for video, wanted in zip(np.concatenate(batches), pictures(split).values(), strict=True):
        assert np.abs(video[0] - wanted).mean() < 10
