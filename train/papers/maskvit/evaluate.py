"""Evaluates a model of ids of frames on held-out clips: hidden ids, and the frames after the context.

Shapes: B clips of T frames, N = T x h x w cells, K ids.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.evaluation import (
    Clips,
    Compared,
    Evaluation,
    Score,
    TrainingLoss,
    centred,
    read_shuffled,
    trained_on,
)
from maskstream.train.evaluate.hidden_ids import HiddenIdLosses, IdCounts, fill_in
from maskstream.train.evaluate.patches import LEVELS, compute_root_mean_square

from .model import FrameIdsConfig, FrameIdsModel, need_mask

MEASURED, COUNTED = 128, 512
"""Maximum numbers of clips that are measured, and of clips whose ids are counted."""
ROUNDS, TEMPERATURE = 12, 1.0
_AT_ONCE = 16
READING = (
    "A few frames of a held-out clip, the cells whose ids the model saw, and the quantiser's decoding with the most "
    "probable ids in all other cells. "
)
GENERATED = (
    "The model sees the ids of the first {context} and fills in the ids of all later frames over {rounds} rounds, the "
    "most certain first. Below the real frames are the quantiser's decoding of their true ids, which is the best "
    "possible result of the model, the generated frames, and the last frame of the context, repeated."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Futures:
    """Frames of clips, uint8 (B, T, H, W, 3).

    Attributes:
        real: The original frames.
        generated: The context, decoded from its ids, and the generated frames.
        drawn: Frames decoded from the real ids, the best possible result of the model.
        context: Number of visible frames.
    """

    real: Tensor
    generated: Tensor
    drawn: Tensor
    context: int

    def repeated(self, frames: Tensor) -> Tensor:
        """Replace all frames uint8 (B, T, H, W, 3) after the context by its last one."""
        last = frames[:, self.context - 1 : self.context].expand_as(frames[:, self.context :])
        return torch.cat((frames[:, : self.context], last), dim=1)

    def errors(self) -> dict[str, float]:
        """Return the root mean squared error of a pixel of the future, in 8-bit intensities, by method."""
        rows = {
            "generated": self.generated,
            "the last frame, repeated": self.repeated(self.real),
            "the last frame drawn from its ids, repeated": self.repeated(self.drawn),
            "the real frames, drawn from their ids": self.drawn,
        }
        real = self.real[:, self.context :]
        return {name: compute_root_mean_square(made[:, self.context :], real) for name, made in rows.items()}


def generate_futures(
    model: FrameIdsModel,
    measured: Iterable[VideoBatch],
    *,
    rounds: int = ROUNDS,
    temperature: float = TEMPERATURE,
    seed: int = 0,
) -> Futures:
    """Generate the frames after the context of each clip.

    Args:
        model: The model.
        measured: Batches of clips.
        rounds: Number of decoding rounds.
        temperature: Factor of the noise in decoding.
        seed: Seed of all random draws.

    Raises:
        ValueError: `measured` is empty.
    """
    rows = list(measured)
    if not rows:
        raise ValueError("futures need at least one batch, got none; use a split with at least one clip")
    generated, drawn = [], []
    with torch.inference_mode():
        for number, batch in enumerate(rows):
            ids = model.ids(batch)
            made = fill_in(
                model.predict,
                ids,
                model.future(len(ids)),
                rounds=rounds,
                temperature=temperature,
                seed=seed + number,
            )
            generated.append(model.drawn(made))
            drawn.append(model.drawn(ids))
    return Futures(
        real=torch.cat([batch.video for batch in rows]),
        generated=torch.cat(generated),
        drawn=torch.cat(drawn),
        context=model.config.context,
    )


def find_last_seen(ids: Tensor, hidden: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return for each cell the id int64 (B, N) at its position in the last earlier frame where it is visible.

    Args:
        ids: Ids int64 (B, N).
        hidden: Hidden cells, bool (B, N).
        shape: (T, h, w). Cells of the first frame get their true ids.
    """
    frames, unseen = ids.view(-1, *shape), hidden.view(-1, *shape)
    rows = [last := frames[:, 0]]
    for t in range(1, shape[0]):
        rows.append(last)
        last = torch.where(unseen[:, t], last, frames[:, t])
    return torch.stack(rows, dim=1).flatten(1)


def list_hidden_pairs(
    model: FrameIdsModel, measured: Iterable[VideoBatch]
) -> Iterator[tuple[Tensor, Tensor, VideoBatch]]:
    """Yield for each batch the ids int64 (B, N), the ids last seen at their positions, and the batch.

    Args:
        model: The model.
        measured: Batches with masks.
    """
    for batch in measured:
        ids = model.ids(batch)
        yield ids, find_last_seen(ids, need_mask(batch).masked, model.grid), batch


@torch.inference_mode()
def count_ids(model: FrameIdsModel, measured: Iterable[VideoBatch]) -> IdCounts:
    """Count the hidden ids of batches with masks, alone and after the id last seen at their positions.

    Args:
        model: The model.
        measured: Batches with masks.
    """
    k = model.blank
    single, pairs = torch.ones(k, dtype=torch.float64), torch.zeros(k * k, dtype=torch.float64)
    for ids, seen, batch in list_hidden_pairs(model, measured):
        hidden = need_mask(batch).masked
        single += torch.bincount(ids[hidden], minlength=k)
        pairs += torch.bincount(seen[hidden] * k + ids[hidden], minlength=k * k)
    return IdCounts(single=single, pairs=pairs.view(k, k))


@torch.inference_mode()
def measure_hidden_ids(model: FrameIdsModel, measured: Iterable[VideoBatch], counts: IdCounts) -> HiddenIdLosses:
    """Measure the losses on batches with masks, compared with the ids last seen; see `HiddenIdLosses.of`.

    Args:
        model: The model.
        measured: Batches with masks.
        counts: Counts of training ids.
    """
    rows = []
    for ids, seen, batch in list_hidden_pairs(model, measured):
        mask = need_mask(batch)
        real = mask.weight > 0
        logits = model.predicted(ids, mask.masked, mask.target)[real].float()
        true, last = ids.gather(1, mask.target)[real], seen.gather(1, mask.target)[real]
        rows.append((F.cross_entropy(logits, true, reduction="none"), logits.argmax(dim=1) == true, true, last))
    return HiddenIdLosses.of(rows, counts)


def collect_held_out_clips(config: VideoData, data: Manifest, most: int = MEASURED) -> list[VideoBatch]:
    """Return shuffled clips of a split with the recipe's masks, as centre crops; repeated calls return the same clips.

    Args:
        config: Data config of the run.
        data: The split.
        most: Largest number of clips.
    """
    return list(read_shuffled(centred(config), data, most=most, size=_AT_ONCE))


def evaluate(model: FrameIdsModel, config: VideoData, data: Manifest, shown: int) -> Evaluation:
    """Measure the scores on held-out clips, compared with counts of the training split and with the last frame
    repeated.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples to show.
    """
    measured = collect_held_out_clips(config, data)
    counts = count_ids(model, collect_held_out_clips(config, trained_on(data), COUNTED))
    found, errors = measure_hidden_ids(model, measured, counts), generate_futures(model, measured).errors()
    own, drawn, first = errors.pop("generated"), errors.pop("the real frames, drawn from their ids"), measured[0]
    with torch.inference_mode():
        made = model.reconstructed(first)
    return Evaluation(
        scores=(
            *found.scores("counts after the id last seen at the place", "a copy of the id last seen at the place"),
            Score(
                name="root mean squared error of a pixel of the generated future",
                value=own,
                unit=LEVELS,
                of="clips",
                count=sum(map(len, measured)),
                baselines=errors,
            ),
        ),
        notes={f"error of the real frames, drawn from their ids, in {LEVELS}": drawn},
        examples=(
            Compared(title="Predictions", reading=READING, batch=first, made=made, rows=range(min(shown, len(first)))),
            generate(model, config, data, count=shown, rounds=ROUNDS, temperature=None, seed=0),
        ),
        loss=TrainingLoss(
            name="The mean cross-entropy of the hidden ids in nats", baseline="counts of ids", value=found.alone
        ),
        learns="A model of frame ids learns to predict the ids that it was not shown.",
    )


def generate(
    model: FrameIdsModel,
    config: VideoData,
    data: Manifest,
    *,
    count: int,
    rounds: int,
    temperature: float | None,
    seed: int,
) -> Clips:
    """Generate futures of held-out clips, next to the real ones and the repeated last frame.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: A split of real samples.
        count: Number of samples to generate.
        rounds: Number of decoding rounds.
        temperature: Temperature of the decoding; None for the default.
        seed: Seed of all random draws.
    """
    batch = collect_held_out_clips(config, data, count)[0]
    heat = TEMPERATURE if temperature is None else temperature
    made = generate_futures(model, [batch], rounds=rounds, temperature=heat, seed=seed)
    frames = "frame" if model.config.context == 1 else f"{model.config.context} frames"
    return Clips(
        title="Generated futures",
        reading=GENERATED.format(context=frames, rounds=rounds),
        keys=batch.key,
        times_s=batch.pts_s,
        sets={
            "original": made.real,
            "ids": made.drawn,
            "generated": made.generated,
            "persistence": made.repeated(made.real),
        },
    )


EVALUATIONS = {FrameIdsConfig: evaluate}
GENERATES = {FrameIdsConfig: generate}
