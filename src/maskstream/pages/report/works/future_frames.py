"""A report's sections on models of ids of frames: hidden cells predicted, and the future generated."""

from __future__ import annotations

from pathlib import Path

from ....pipelines.modalities.video.batch import VideoBatch
from ....pipelines.modalities.video.data import VideoData
from ....train.papers.maskvit.evaluate import ROUNDS, TEMPERATURE, futures, held_out, held_out_clips
from ....train.papers.maskvit.model import FrameIdsModel
from ...figures.card import Card, Section
from ...figures.figures import Figures
from ...figures.video import frame_rows, picture_side, whole_frames
from ...figures.work import Drawn, Work, compared

READING = (
    "A few frames of a held-out clip, the cells whose ids the model saw, and these with what the quantiser draws of "
    "the most probable ids of the others. "
)
GENERATED = (
    "The model sees the ids of the first {context} and fills in those of all later ones over {rounds} rounds, the most "
    "certain first. Below the real frames stand what the quantiser makes of their true ids, which is the best that the "
    "model could draw, the generated ones, and the last frame of the context, repeated."
)


def show(config: VideoData, model: FrameIdsModel, data: str | Path, shown: int, figures: Figures[VideoBatch]) -> Work:
    """Predictions for shuffled clips with the recipe's masks, and generated futures."""
    measured = held_out_clips(config, data)
    section = compared(figures, measured[0], model, title="Predictions", words=READING, rows=shown)
    drawn = Drawn(count=shown, rounds=ROUNDS)
    return Work(
        found=held_out(config, model, data, measured), sections=(section, generated(config, model, data, drawn))
    )


def generated(config: VideoData, model: FrameIdsModel, data: str | Path, drawn: Drawn) -> Section:
    """Generated futures of held-out clips, beside the real ones and the last frame, repeated."""
    batch = held_out_clips(config, data, drawn.count)[0]
    temperature = TEMPERATURE if drawn.temperature is None else drawn.temperature
    made = futures(model, [batch], rounds=drawn.rounds, temperature=temperature, seed=drawn.seed)
    side, grid = picture_side(4 * batch.video[:, :, 0, 0, 0].numel()), config.grids["video"]
    repeated = made.repeated(made.real)
    cards = []
    for i, key in enumerate(batch.key):
        rows = {
            "original": made.real[i],
            "ids": made.drawn[i],
            "generated": made.generated[i],
            "persistence": repeated[i],
        }
        pictures = {name: whole_frames(frames.numpy(), grid, side) for name, frames in rows.items()}
        cards.append(Card(key=key, words="", figures=frame_rows(pictures, batch.pts_s[i].tolist())))
    frames = "frame" if model.config.context == 1 else f"{model.config.context} frames"
    words = GENERATED.format(context=frames, rounds=drawn.rounds)
    return Section(title="Generated futures", words=words, cards=tuple(cards), layout="columns")
