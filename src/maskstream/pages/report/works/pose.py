"""A report's sections on poses: completed and lifted ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ....pipelines.modalities.pose.batch import PoseBatch
from ....pipelines.modalities.pose.data import PoseData
from ....train.papers.mpm.evaluate import held_out, held_out_clips
from ....train.papers.mpm.model import PoseModel
from ...figures.card import Section
from ...figures.figures import Figures
from ...figures.work import Work, compared

COMPLETED = (
    "Held-out motions. The encoder saw the joints that are drawn strong, of the picture or of the pose in 3-D; the "
    "model predicted all joints of all frames. Six frames of a clip are drawn."
)
LIFTED = (
    "Held-out motions as a camera sees them, from which the model predicted where the joints are in space. From the "
    "side, the depth of a joint is to the right, which the picture does not show."
)


def show(config: PoseData, model: PoseModel, data: str | Path, shown: int, figures: Figures[PoseBatch]) -> Work:
    """Lifted poses of the first motions and, if the model completes poses, what it made of masked ones."""
    batch = held_out_clips(config, data)[0]
    whole = replace(batch, mask_2d=None, mask_3d=None)
    with torch.inference_mode():
        made = replace(whole, pose_3d=model.lifted(whole).float())
    cards = tuple(figures.compared(whole, made, i) for i in range(min(shown, len(whole))))
    sections = [Section(title="Lifted poses", words=LIFTED, cards=cards, layout="columns")]
    if model.decoder_2d is not None:
        sections.append(compared(figures, batch, model, title="Completed poses", words=COMPLETED, rows=shown))
    return Work(found=held_out(config, model, data), sections=tuple(sections))
