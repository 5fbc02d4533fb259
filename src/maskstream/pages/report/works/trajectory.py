"""A report's section on walks: where a model thinks that they go next, beside where they went."""

from __future__ import annotations

from pathlib import Path

import torch

from ....pipelines.modalities.trajectory.batch import TrajectoryBatch
from ....pipelines.modalities.trajectory.data import TrajectoryData
from ....train.papers.where2imagine.evaluate import held_out, held_out_clips
from ....train.papers.where2imagine.model import WaypointModel
from ...figures.card import Section
from ...figures.figures import Figures
from ...figures.work import Work

WAYPOINTS = (
    "Held-out walks, seen from above with the camera now at the large wedge, looking upwards. The model saw the "
    "frames, and predicted where the walk is a little later and where it then looks. Wedges point to where the camera "
    "looks. Grey points are what the depth of the last frame shows between knees and head; up to them the floor is "
    "free."
)


def show(
    config: TrajectoryData,
    model: WaypointModel,
    data: str | Path,
    shown: int,
    figures: Figures[TrajectoryBatch],
) -> Work:
    """True and predicted waypoints of the first walks."""
    batch = held_out_clips(config, data)[0]
    with torch.inference_mode():
        made = model.reconstructed(batch)
    cards = tuple(figures.compared(batch, made, i) for i in range(min(shown, len(batch))))
    section = Section(title="Waypoints", words=WAYPOINTS, cards=cards, layout="wide")
    return Work(found=held_out(config, model, data), sections=(section,))
