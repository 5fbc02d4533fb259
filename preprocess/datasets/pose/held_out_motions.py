"""Splits motions so that near-duplicates share a split.

Games make new motions of old ones: an attack begins with the pose of another, a turn walks as the walk does. Names do
not say it, so the motions are read and compared.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...encode.pose.alike import alike
from ...encode.pose.encoder import PoseEncoder
from ...source import RejectError, Source
from ..held_out import held_out_groups

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
