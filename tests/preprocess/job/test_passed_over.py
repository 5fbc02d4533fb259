"""Files in formats that a folder's dataset does not read."""

import cv2
import numpy as np
import pytest

from maskstream.preprocess import make_shards

from .folder_job import Told


@pytest.mark.parametrize("dataset", ["image-folder", "still-folder", "imagefolder", "image-text-folder"])
def test_files_that_are_not_read_are_counted_by_suffix(tmp_path, dataset):
    for name in ("cat", "dog"):
        folder = tmp_path / "raw" / "train" / name
        folder.mkdir(parents=True)
        pixels = np.random.default_rng(len(name)).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{name}.png"), pixels)
        for suffix in (".gif", "") if name == "cat" else (".GIF",):
            (folder / f"other{suffix}").write_bytes(b"GIF89a")
        if dataset == "image-text-folder":
            (folder / f"{name}.txt").write_text(f"a {name}")
    told = Told()
    report = make_shards(dataset, tmp_path / "raw", tmp_path / "out", workers=0, progress=told)
    assert report.n_sources == 2
    assert told.words == [f"{dataset} does not read 3 files: 2 .gif, 1 without a suffix"]


def test_nothing_is_told_where_every_file_is_read(tmp_path):
    (tmp_path / "raw").mkdir()
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / "raw" / f"{name}.png"), np.eye(64, dtype=np.uint8) * 255)
    told = Told()
    make_shards("image-folder", tmp_path / "raw", tmp_path / "out", workers=0, as_is=True, progress=told)
    assert told.words == []
