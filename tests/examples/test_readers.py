"""Others' readers over the tars: each sample once, with the frames that PyAV decodes."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
import torch

from maskstream.pipelines import VideoBatch, VideoClip, masks, video_loader
from maskstream.preprocess import index_tars
from maskstream.shards.format.manifest import Manifest

from ..preprocess.foreign.foreign_tars import write_tar
from ..preprocess.foreign.foreign_videos import VIDEOS, write_video
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


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, VideoBatch]:
    """Files and a tar of them in the fixture's folder, and what a loader of their index gives in epoch 1, by key."""
    folder = tmp_path_factory.mktemp("videos")
    names = ("moov-at-end.mp4", "faststart.mp4", "fragmented.mp4")
    files = {name: write_video(folder / name, *VIDEOS[name], seed=n) for n, name in enumerate(names)}
    write_tar(folder / "clips-000.tar", list(files.items()), tarfile.USTAR_FORMAT)
    index_tars([folder], workers=0)
    clip, mask = VideoClip(frames=4, stride=4, size=32), masks.Tube(ratio=0.75)
    loader = video_loader(folder, clip=clip, mask=mask, patch=8, batch_size=1, seed=0, device="cpu", threads=1)
    loader.seek(1)
    return {str(folder / batch.key[0]): batch for batch in loader}


def check_rows(found: list[VideoBatch], wanted: dict[str, VideoBatch]) -> None:
    """Each row once, bit by bit."""
    by_key = {Path(name).name: batch for name, batch in wanted.items()}
    rows = [(batch, row) for batch in found for row in range(len(batch))]
    assert sorted(batch.key[row] for batch, row in rows) == sorted(by_key)
    for batch, row in rows:
        own = by_key[batch.key[row]]
        assert torch.equal(batch.video[row], own.video[0])
        assert torch.equal(batch.mask.masked[row], own.mask.masked[0])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves tars open
def test_webdataset_makes_the_rows_of_a_loader(videos: dict[str, VideoBatch]) -> None:
    pytest.importorskip("webdataset", reason="pip install 'maskstream[webdataset]'")
    tars = str(Path(next(iter(videos))).parent / "clips-{000..000}.tar")
    batches = list(example("readers/webdataset_masks.py").batches(tars, epoch=1, batch_size=2))
    assert [len(batch) for batch in batches] == [2, 1]
    check_rows(batches, videos)


def test_torchdata_nodes_make_the_rows_of_a_loader(videos: dict[str, VideoBatch]) -> None:
    pytest.importorskip("torchdata.nodes", reason="pip install torchdata")
    files = [Path(f"{name}.mp4") for name in sorted(videos)]
    batches = list(example("readers/torchdata_nodes.py").batches(files, epoch=1, batch_size=2))
    assert [key for batch in batches for key in batch.key] == [file.stem for file in files]
    check_rows(batches, videos)


@pytest.mark.slow
def test_models_of_transformers_take_what_collates_give() -> None:
    pytest.importorskip("transformers", reason="pip install transformers")
    found = {name: (batch, result) for name, batch, result in example("readers/collates.py").results()}
    for name in ("VideoMAE", "ViTMAE", "BERT"):
        assert torch.isfinite(found[name][1]["loss"]), name
    batch, result = found["VideoMAE"]
    assert result["logits"].shape[:2] == (4, int(batch["bool_masked_pos"][0].sum()))
    batch, result = found["ViTMAE"]
    assert torch.equal(result["mask"].bool(), batch["noise"] >= 4)  # 4 of 16 tokens stay visible
    batch, result = found["AST"]
    assert len(result["hidden"]) == int(batch["bool_masked_pos"].sum()) == 4 * 16
    batch, result = found["BERT"]
    chosen = batch["labels"] >= 0
    own = torch.nn.functional.cross_entropy(result["logits"][chosen], batch["labels"][chosen])
    assert torch.allclose(result["loss"], own)
    assert (batch["input_ids"][chosen] == 3).float().mean() > 0.5


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
