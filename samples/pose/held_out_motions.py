"""Splits motions so that near-duplicates share a split.

Games make new motions of old ones: an attack begins with the pose of another, a turn walks as the walk does. Names do
not say it, so the motions are read and compared.

Motions are near-duplicates that share poses, also turned and mirrored ones.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from maskstream.preprocess.datasets.dataset import held_out_groups
from maskstream.preprocess.encode.pose.encoder import PoseEncoder
from maskstream.preprocess.encode.pose.motion_files import Floats
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.media.h36m import JOINTS, MIRRORED

NEAR_M = 0.03
"""Two poses are alike if the root mean square of the distances of their joints is below this."""
SHARED = 0.2
"""Two motions are alike if this share of the poses of one is also in the other."""


def alike(motions: Mapping[str, Floats]) -> dict[str, str]:
    """The group of each motion, poses (T, 17, 3) by name: the first name of all that are connected by likeness."""
    names = sorted(motions)
    facing = [faced(motions[name]) for name in names]
    both = [np.concatenate([one, faced(_mirrored(motions[name]))]) for one, name in zip(facing, names, strict=True)]
    group = list(range(len(names)))
    for i, poses in enumerate(facing):
        for j, others in enumerate(both):
            if i != j and _root(group, i) != _root(group, j) and shared(poses, others) >= SHARED:
                first, second = sorted((_root(group, i), _root(group, j)))
                group[second] = first
    return {name: names[_root(group, i)] for i, name in enumerate(names)}


def _root(group: list[int], i: int) -> int:
    while group[i] != i:
        i = group[i]
    return i


def shared(poses: Floats, others: Floats) -> float:
    """The share of poses (T, D) of which there is one alike among others (S, D)."""
    squares = np.square(poses).sum(axis=1)[:, None] + np.square(others).sum(axis=1) - 2 * poses @ others.T
    near: npt.NDArray[np.bool_] = squares.min(axis=1) < len(JOINTS) * NEAR_M**2
    return float(near.mean())


def faced(poses: Floats) -> Floats:
    """Poses (T, 17, 3) with the pelvis at 0, turned so that the left hip lies in the direction of x: (T, 51)."""
    at = poses - poses[:, :1]
    across = at[:, 4] - at[:, 1]
    size = np.maximum(np.hypot(across[:, 0], across[:, 1]), 1e-9)
    cos, sin = (across[:, 0] / size)[:, None], (across[:, 1] / size)[:, None]
    turned = (cos * at[..., 0] + sin * at[..., 1], cos * at[..., 1] - sin * at[..., 0], at[..., 2])
    return np.stack(turned, axis=-1).reshape(len(poses), -1)


def _mirrored(poses: Floats) -> Floats:
    mirrored: Floats = poses[:, MIRRORED] * np.array([-1.0, 1.0, 1.0])
    return mirrored


STEP = 2
"""Of the poses of a motion every second one is compared."""


def held_out_motions(sources: Iterable[Source], encoder: PoseEncoder) -> dict[str, list[Source]]:
    """The splits train and val of motions, in which those that are alike are together.

    About a fifth of each label is held out. Files that cannot be read are for training, where they become rejects.
    """
    listed = list(sources)
    motions = {}
    for source in listed:
        try:
            motions[source.id] = encoder.motion(source).places[::STEP]
        except RejectError:
            continue
    group = alike(motions)
    val = held_out_groups((source.label, group[source.id]) for source in listed if source.id in group)
    splits: dict[str, list[Source]] = {"train": [], "val": []}
    for source in listed:
        splits["val" if group.get(source.id) in val else "train"].append(source)
    return splits
