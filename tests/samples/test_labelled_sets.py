"""Labelled sets of packages: a small stand-in of each package's layout, and the real packages in slow tests."""

from __future__ import annotations

import gzip
import hashlib
import struct
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskstream.preprocess.datasets import Dataset, chosen_dataset, named_dataset
from maskstream.preprocess.source import RejectError
from maskstream.samples.image.fashion_mnist import fashion_mnist
from maskstream.shards.errors import DatasetError


def png(path: Path, value: int, side: int = 72) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((side, side, 4), 255, np.uint8)
    pixels[:, :, 0], pixels[:, :, 1] = value % 256, value // 256
    cv2.imwrite(str(path), pixels)


def listed(dataset: Dataset) -> dict[str, list[tuple[str, str]]]:
    return {
        split: sorted((source.id, dataset.label_names[source.label]) for source in sources)
        for split, sources in dataset.splits.items()
    }


def counts(dataset: Dataset) -> dict[str, int]:
    ids = [source.id for sources in dataset.splits.values() for source in sources]
    assert len(set(ids)) == len(ids)
    return {split: len(sources) for split, sources in dataset.splits.items()}


def groups_of(dataset: Dataset, name: str) -> None:
    """Asserts that no group is in both splits."""
    train, val = ({source.meta[name] for source in sources} for sources in dataset.splits.values())
    assert train
    assert val
    assert not train & val


# --- fashion-mnist


def write_mnist(folder: Path, images: dict[str, int]) -> None:
    folder.mkdir(parents=True)
    for prefix, n in images.items():
        pixels = np.arange(n * 28 * 28, dtype=np.uint32).astype(np.uint8)
        header = bytes((0, 0, 8, 3)) + struct.pack(">III", n, 28, 28)
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pixels.tobytes()))
        labels = bytes(number % 10 for number in range(n))
        labels = bytes((0, 0, 8, 1)) + struct.pack(">I", n) + labels
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


def test_fashion_mnist_has_the_publishers_splits_and_each_image_by_itself(tmp_path: Path) -> None:
    write_mnist(tmp_path / "dataset-fashion-mnist", {"train": 12, "t10k": 3})
    dataset = fashion_mnist(tmp_path)
    assert counts(dataset) == {"train": 12, "val": 3}
    assert [source.label for source in dataset.splits["train"]] == [*range(10), 0, 1]
    assert dataset.label_names[9] == "ankle boot"
    encoded = dataset.encoder.encode(dataset.splits["train"][11])
    pixels = cv2.imdecode(np.frombuffer(encoded.members["png"].data, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(pixels, (np.arange(784) + 11 * 784).astype(np.uint8).reshape(28, 28))


def test_an_image_that_an_idx_file_has_not_is_a_reject(tmp_path: Path) -> None:
    write_mnist(tmp_path / "dataset-fashion-mnist", {"train": 2, "t10k": 1})
    dataset = fashion_mnist(tmp_path)
    source = dataset.splits["train"][0]
    with pytest.raises(RejectError, match="has 2 images, but no image 2"):
        dataset.encoder.encode(replace(source, window=(2, 3)))
    source.path.write_bytes(source.path.read_bytes()[:-1])
    with pytest.raises(RejectError, match="is truncated: image 1 has 783 of 784 bytes"):
        dataset.encoder.encode(replace(source, window=(1, 2)))
    source.path.write_bytes(b"P5 28 28 255\n" + bytes(784))
    with pytest.raises(RejectError, match="is not an IDX file"):
        dataset.encoder.encode(source)


def test_a_damaged_file_of_fashion_mnist_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "dataset-fashion-mnist"
    write_mnist(folder, {"train": 2, "t10k": 1})
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DatasetError, match=r"train-images-idx3-ubyte\.gz cannot be unpacked"):
        fashion_mnist(tmp_path)
    assert not list((tmp_path / "unpacked").iterdir())


def test_without_apt_fashion_mnist_comes_from_its_publisher_and_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path / "web", {"train": 12, "t10k": 3})
    module = import_module("maskstream.samples.image.fashion_mnist")
    sums = {
        path.name: hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
        for path in (tmp_path / "web").iterdir()
    }
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *words: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(module, "PUBLISHED", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(DatasetError, match=r"contains data with sha256 \w+, expected c59f"):
            fashion_mnist(tmp_path / "raw")
        monkeypatch.setattr(module, "SHA256", sums | {"none.gz": ""})
        with pytest.raises(DatasetError, match=r"none\.gz could not be downloaded \(.*404"):
            fashion_mnist(tmp_path / "raw")
        assert not list((tmp_path / "raw").iterdir())
        monkeypatch.setattr(module, "SHA256", sums)
        assert counts(fashion_mnist(tmp_path / "raw")) == {"train": 12, "val": 3}
        server.shutdown()
    assert {path.name for path in (tmp_path / "raw/dataset-fashion-mnist").iterdir()} == set(sums)


def test_clips_of_moving_fashion_mnist_have_the_images_of_their_split(tmp_path: Path) -> None:
    write_mnist(tmp_path / "dataset-fashion-mnist", {"train": 12, "t10k": 9})
    make, left = chosen_dataset("moving-fashion-mnist", ["clips=11", "frames=16"])
    assert left == []
    with pytest.raises(DatasetError, match="clips must be at least 2, got 1"):
        chosen_dataset("moving-fashion-mnist", ["clips=1"])[0](tmp_path)
    dataset = make(tmp_path)
    assert counts(dataset) == {"train": 11, "val": 5}
    assert [source.label for source in dataset.splits["train"]] == [*range(10), 0]
    assert {source.path.name for source in dataset.splits["val"]} == {"t10k-images-idx3-ubyte"}
    assert dataset.modality == "video"
    encoded = dataset.encoder.encode(dataset.splits["val"][1])
    assert (set(encoded.members), encoded.meta["n_frames"]) == ({"mp4"}, 16)


# --- the real packages

REAL = {
    "fashion-mnist": (70_000, 10),
    "moving-fashion-mnist": (3_000, 10),
    "gm-notes": (4_000, 10),
}
"""The least number of sources, and the number of labels."""


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_the_real_package_has_its_labels_in_both_splits(name: str, tmp_path: Path) -> None:
    least, labels = REAL[name]
    dataset = named_dataset(name)(tmp_path)
    assert sum(counts(dataset).values()) >= least
    assert len(dataset.label_names) == labels
    for split, sources in dataset.splits.items():
        assert {source.label for source in sources} == set(range(labels)), split
        assert dataset.encoder.encode(sources[0]).members
