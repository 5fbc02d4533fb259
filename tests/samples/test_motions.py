"""Sets of motions: labels of names, and motions that share poses share a split."""

import numpy as np
import pytest

from maskstream.preprocess.datasets import named_dataset
from maskstream.samples.pose.actions import LABELS, parse_action_label
from maskstream.samples.pose.sample_pose import HELD_OUT
from maskstream.shards.errors import DatasetError
from maskstream.shards.media.h36m import MIRRORED


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
    assert parse_action_label(name) == (-1 if label is None else LABELS.index(label))


def faced(poses):
    """Poses (T, 17, 3) with the pelvis at 0, turned so that the left hip lies in the direction of x: (T, 51)."""
    at = poses - poses[:, :1]
    across = at[:, 4] - at[:, 1]
    cos, sin = (across[:, :2] / np.maximum(np.linalg.norm(across[:, :2], axis=1, keepdims=True), 1e-9)).T[..., None]
    turned = cos * at[..., 0] + sin * at[..., 1], cos * at[..., 1] - sin * at[..., 0], at[..., 2]
    return np.stack(turned, axis=-1).reshape(len(poses), -1)


def shared(poses, others):
    """The share of poses (T, 51) with another one whose joints are less than 3 cm off, as a root mean square."""
    squares = np.square(poses).sum(axis=1)[:, None] + np.square(others).sum(axis=1) - 2 * poses @ others.T
    return (squares.min(axis=1) < 17 * 0.03**2).mean()


@pytest.mark.slow
def test_no_held_out_motion_shares_poses_with_one_for_training(tmp_path):
    """Neither turned nor mirrored ones; of the real packages."""
    dataset = named_dataset("sample-pose")(tmp_path)
    assert {source.id.partition("/")[2] for source in dataset.splits["val"]} == HELD_OUT
    labels = {split: {source.label for source in sources} for split, sources in dataset.splits.items()}
    assert labels["train"] == labels["val"]
    places = {
        split: [dataset.encoder.motion(source).places[::2] for source in sources]
        for split, sources in dataset.splits.items()
    }
    for poses in places["val"]:
        for other in places["train"]:
            both = np.concatenate([faced(other), faced(other[:, MIRRORED] * (-1, 1, 1))])
            own = np.concatenate([faced(poses), faced(poses[:, MIRRORED] * (-1, 1, 1))])
            assert shared(faced(poses), both) < 0.2
            assert shared(faced(other), own) < 0.2


def test_a_folder_without_motions_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="pose-folder"):
        named_dataset("pose-folder")(tmp_path / "empty")
