"""Sets of motions: labels of names, and motions that share poses share a split."""

import zipfile
from importlib import import_module

import numpy as np
import pytest

from maskstream.preprocess.datasets import named_dataset
from maskstream.preprocess.encode.pose.motion_files import BIPED
from maskstream.samples.pose.actions import LABELS, action_label
from maskstream.samples.pose.held_out_motions import alike, faced, shared
from maskstream.shards.errors import DatasetError
from maskstream.shards.media.h36m import MIRRORED

from ..pipelines.small_media import random_motion
from ..preprocess.encode.motion_files import lugaru_bytes, psa_bytes

zero_ad = import_module("maskstream.samples.pose.zero_ad")


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
    made = named_dataset("lugaru")(tmp_path)
    where = {source.id: split for split, sources in made.splits.items() for source in sources}
    assert len(where) == 11
    assert where["lugaru/Broken"] == "train"
    for first, second in ("AB", "CD", "EF", "GH", "IJ"):
        assert where[f"lugaru/Kick{first}"] == where[f"lugaru/Kick{second}"]
    assert {"train", "val"} == set(where.values())
    assert named_dataset("lugaru")(tmp_path).splits == made.splits


def test_0ad_is_unpacked_once(tmp_path):
    archive = tmp_path / zero_ad.PACKAGE / zero_ad.ARCHIVE
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        for i in range(4):
            places = np.random.default_rng(i).normal(size=(5, len(BIPED), 3))
            file.writestr(f"{zero_ad.MOTIONS}infantry/attack_{i}.dae.cached.psa", psa_bytes(places))
        file.writestr(f"{zero_ad.MOTIONS}../../../evil.psa", b"")
        file.writestr("art/animation/horse/walk.psa", b"")
    for _ in range(2):
        made = named_dataset("0ad")(tmp_path)
        ids = sorted(source.id for sources in made.splits.values() for source in sources)
        assert ids == [f"infantry/attack_{i}" for i in range(4)]
        archive.unlink(missing_ok=True)
    assert not list(tmp_path.parent.rglob("evil.psa"))


def test_a_folder_without_motions_is_refused(tmp_path):
    (tmp_path / "motions").mkdir()
    with pytest.raises(DatasetError, match="no motions"):
        named_dataset("0ad")(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="pose-folder"):
        named_dataset("pose-folder")(tmp_path / "empty")
