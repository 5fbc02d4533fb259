"""Folders of frames with lists, as MMAction2's tools leave them."""

import cv2
import numpy as np
import pytest

from maskstream.preprocess import DATASETS, PROFILES, make_shards
from maskstream.preprocess.encode.video.encoder import FramesEncoder
from maskstream.preprocess.source import RejectError
from maskstream.shards.errors import DatasetError

from ..encode.test_lerobot import levels


def write_frames(folder, count, first=60):
    folder.mkdir(parents=True)
    for n in range(count):
        cv2.imwrite(str(folder / f"img_{n + 1:05d}.jpg"), np.full((48, 64, 3), first + 4 * n, np.uint8))
        cv2.imwrite(str(folder / f"x_{n + 1:05d}.png"), np.zeros((48, 64), np.uint8))  # its flow


@pytest.fixture
def kinetics(tmp_path):
    root = tmp_path / "kinetics400"
    write_frames(root / "rawframes_train/abseiling/-3B32lodo2M_000059_000069", 12)
    write_frames(root / "rawframes_train/yoga/abc_000001_000011", 9, first=90)
    write_frames(root / "rawframes_val/yoga/def_000001_000011", 5)
    (root / "annotations").mkdir()
    (root / "annotations/label_map_k400.txt").write_text("abseiling\nyoga\n")
    (root / "kinetics400_train_list_rawframes.txt").write_text(
        "abseiling/-3B32lodo2M_000059_000069 11 0\nyoga/abc_000001_000011 9 1\nyoga/gone_000000_000010 300 1\n"
    )
    (root / "kinetics400_val_list_rawframes.txt").write_text("yoga/def_000001_000011 5 1\n")
    return root


def test_frames_keep_their_order_and_number(kinetics, tmp_path):
    dataset = DATASETS["rawframes"](kinetics)
    found = {split: [(one.id, one.label, len(one.files)) for one in some] for split, some in dataset.splits.items()}
    assert found == {
        "train": [("train/abseiling/-3B32lodo2M_000059_000069", 0, 11), ("train/yoga/abc_000001_000011", 1, 9)],
        "val": [("val/yoga/def_000001_000011", 1, 5)],
    }
    assert dataset.label_names == ("abseiling", "yoga")
    assert [reject.source for reject in dataset.missing["train"]] == ["train/yoga/gone_000000_000010"]
    encoded = FramesEncoder(fps=25.0).encode(dataset.splits["train"][0])
    assert (encoded.meta["n_frames"], encoded.meta["fps"], encoded.meta["vfr"]) == (11, 25.0, False)
    np.testing.assert_allclose(levels(encoded.members["mp4"].data, tmp_path), [60 + 4 * n for n in range(11)], atol=1.5)


def test_shards_of_frames(kinetics, tmp_path):
    report = make_shards("rawframes", kinetics, tmp_path / "out", workers=0, settings=["fps=10"], max_rejects=0.5)
    assert {name: split.counts["samples"] for name, split in report.splits.items()} == {"train": 2, "val": 1}
    with pytest.raises(ValueError, match="these are images; use train or fast"):
        make_shards("rawframes", kinetics, tmp_path / "copy", profile=PROFILES["copy"])


def test_frames_that_do_not_fit_their_list_are_said(kinetics):
    path = kinetics / "rawframes_train/abseiling/-3B32lodo2M_000059_000069/img_00003.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(RejectError, match=r"img_00003\.jpg is not a JPEG, or is truncated"):
        FramesEncoder().encode(DATASETS["rawframes"](kinetics).splits["train"][0])
    path.unlink()
    path.with_name("img_00004.jpg").unlink()
    with pytest.raises(DatasetError, match="contains 10 of the 11 frames"):
        DATASETS["rawframes"](kinetics)
    (kinetics / "kinetics400_train_list_rawframes.txt").write_text("abseiling/a.mp4 0\n")
    with pytest.raises(DatasetError, match=r"line 1 is 'abseiling/a\.mp4 0', not `FOLDER NUMBER_OF_FRAMES LABEL`"):
        DATASETS["rawframes"](kinetics)
