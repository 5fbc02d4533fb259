"""Sets of motions: labels of names, and motions that share poses share a split."""

import numpy as np
import pytest

from maskstream.preprocess.datasets import named_dataset
from maskstream.preprocess.encode.pose.encoder import PoseEncoder
from maskstream.samples.pose.actions import LABELS, action_label
from maskstream.samples.pose.held_out_motions import alike, faced, held_out_motions, shared
from maskstream.samples.pose.lugaru import lugaru_sources
from maskstream.shards.errors import DatasetError
from maskstream.shards.media.h36m import MIRRORED

from ..pipelines.small_media import random_motion
from ..preprocess.encode.motion_files import lugaru_bytes


def turned(poses, degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return poses @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + (3, -2, 0)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("SpinKickCaught", "hurt"),
        ("SpinKick", "attack"),
        ("RabbitRunning", "move"),
        ("humanoid3d_spinkick", "attack"),
        ("humanoid3d_dance_a", "dance"),
        ("WolfIdle", "idle"),
        ("gather_wood", "work"),
        ("Tempanim", None),
    ],
)
def test_labels_of_names(name, label):
    assert action_label(name) == (-1 if label is None else LABELS.index(label))


def test_motions_that_share_poses_are_alike_also_turned_and_mirrored():
    first, second, third = (random_motion(np.random.default_rng(i), 60) * (1, 1, 1 + 0.2 * i) for i in range(3))
    mirrored = first[:, MIRRORED] * (-1, 1, 1)
    parts = {
        "a": first,
        "b": turned(np.concatenate([second, first[:20]]), 130),
        "c": turned(mirrored[40:], -70),
        "d": third,
    }
    assert alike(parts) == {"a": "a", "b": "a", "c": "a", "d": "d"}
    assert shared(faced(turned(first, 33)), faced(first)) == 1
    assert shared(faced(third), faced(first)) == 0


def write_lugaru(folder, name, seed, keys=6):
    rng = np.random.default_rng(seed)
    poses = rng.normal(size=(keys, 20, 3))
    poses[:, :, 1] += np.linspace(2, 9, 20)
    (folder / name).write_bytes(lugaru_bytes(poses, rng.uniform(2, 5, keys)))


def test_lugaru_is_split_by_what_is_alike_and_damaged_files_are_for_training(tmp_path):
    folder = tmp_path / "lugaru-data"
    folder.mkdir()
    for i in range(10):
        write_lugaru(folder, f"Kick{'ABCDEFGHIJ'[i]}", seed=i // 2)
    (folder / "Broken").write_bytes(b"x")
    write_lugaru(folder, "Tempanim", seed=99)
    splits = held_out_motions(lugaru_sources(tmp_path), PoseEncoder())
    where = {source.id: split for split, sources in splits.items() for source in sources}
    assert len(where) == 11
    assert where["lugaru/Broken"] == "train"
    for first, second in ("AB", "CD", "EF", "GH", "IJ"):
        assert where[f"lugaru/Kick{first}"] == where[f"lugaru/Kick{second}"]
    assert {"train", "val"} == set(where.values())
    assert held_out_motions(lugaru_sources(tmp_path), PoseEncoder()) == splits


def test_a_folder_without_motions_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="pose-folder"):
        named_dataset("pose-folder")(tmp_path / "empty")
