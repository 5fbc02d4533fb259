"""Others' readers over the tars: each sample once, with the frames that PyAV decodes."""

from __future__ import annotations

import importlib.util
import io
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


def test_spdl_decodes_every_sample_in_the_order_of_the_manifest(split: Path) -> None:
    pytest.importorskip("spdl.io")
    batches = list(example("readers/spdl_tars.py").batches(split))
    assert [batch.shape for batch in batches] == [(4, 8, 64, 64, 3), (4, 8, 64, 64, 3), (3, 8, 64, 64, 3)]
    for video, wanted in zip(np.concatenate(batches), pictures(split).values(), strict=True):
        assert np.abs(video[0] - wanted).mean() < 10
