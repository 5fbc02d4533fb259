"""Errors of predicted waypoints on held-out trajectories, in metres and degrees, compared with baselines of walking.

Four baselines: walking straight on at the speed of the clip's last step; also continuing its turn, on an arc; the mean
waypoint of the training split; and the linear map of speed and turn with the smallest error on the training split.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from maskstream.pipelines.modalities.trajectory.batch import TrajectoryBatch
from maskstream.pipelines.modalities.trajectory.data import TrajectoryData
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.evaluation import Compared, Evaluation, Score, TrainingLoss, read_batches, trained_on

from .model import WaypointConfig, WaypointModel, measure_speed, step_s

STRAIGHT, KEPT_UP, MEAN = "straight on", "the last motion kept up", "the mean waypoint"
LINEAR = "a linear map of speed and turn"
MEASURED = 1024
"""About how many clips are measured; a split is gone through several times, with other clips."""
KNOWN = 1024
READING = (
    "Held-out trajectories from above; the large wedge is the current camera, looking upwards. The model saw the "
    "frames, and predicted the position and heading a little later. Wedges point in the camera's direction. Grey "
    "points are the depth of the last frame between the heights of knees and head; the floor is free up to them."
)
ROUNDS = 8
_TIMES, _NEAR_M = 30, 0.05


def evaluate(model: WaypointModel, config: TrajectoryData, data: Manifest, shown: int) -> Evaluation:
    """Measure the errors on a held-out split, compared with the baselines, and show some waypoints.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples to show.
    """
    clips = collect_held_out_clips(config, data)
    found = measure_waypoints(model, clips, *collect_known_guesses(config, data))
    own, straight, count, first = found.pop("model"), found[STRAIGHT], sum(map(len, clips)), clips[0]
    with torch.inference_mode():
        made = model.reconstructed(first)
    return Evaluation(
        scores=tuple(
            Score(
                name=f"error of the {what} {model.config.ahead_s:g} s ahead",
                value=own[i],
                unit=unit,
                of="clips",
                count=count,
                baselines={name: one[i] for name, one in found.items()},
            )
            for i, (what, unit) in enumerate((("waypoint", "m"), ("turn", "degrees")))
        ),
        examples=(
            Compared(
                title="Waypoints",
                reading=READING,
                batch=first,
                made=made,
                rows=range(min(shown, len(first))),
                wide=True,
            ),
        ),
        loss=TrainingLoss(
            name="The mean distance of predicted and true positions in metres, plus the mean angle of the turns in "
            "radians",
            baseline=f"guessing {STRAIGHT}",
            value=straight[0] + straight[1] * torch.pi / 180,
        ),
        learns="A waypoint model learns from trajectories where a person would be a little later.",
    )


def collect_held_out_clips(config: TrajectoryData, data: Manifest) -> list[TrajectoryBatch]:
    """Return clips of all trajectories of a split at random times, whole and not mirrored; the same at each call.

    Args:
        config: Data config of the run.
        data: The split.
    """
    n = len(data)
    rounds = max(min(ROUNDS, MEASURED // n), 1)
    whole = replace(config, mask=None, views=1, colour=None)
    return list(read_batches(whole, data, size=min(n, 64), samples=n, rounds=rounds))


def collect_known_guesses(config: TrajectoryData, data: Manifest) -> tuple[Tensor, Tensor]:
    """Fit the baselines on the training split.

    Args:
        config: Data config of the run.
        data: The held-out split.

    Returns:
        The mean waypoint, float32 (3,), and the matrix from `measure_motion` to waypoints with the smallest error,
            float32 (3, 3).
    """
    train = trained_on(data)
    n = len(train)
    rounds = max(min(ROUNDS, KNOWN // n), 1)
    small = replace(config, mask=None, views=1, depth=False, clip=replace(config.clip, size=config.patch))
    clips = list(read_batches(small, train, size=min(n, 64), samples=n, rounds=rounds))
    true = torch.cat([clip.waypoint for clip in clips])
    turn = torch.atan2(true[:, 2].sin().mean(), true[:, 2].cos().mean())
    moved = torch.cat([measure_motion(clip, config.ahead_s) for clip in clips])
    return torch.cat([true[:, :2].mean(dim=0), turn[None]]), fit_median(moved, true)


def measure_motion(batch: TrajectoryBatch, ahead_s: float) -> Tensor:
    """Return 1, and the metres and the turn ahead if the speed and the turn of the clips' last step continue: float32
    (B, 3).

    Args:
        batch: Batch of clips.
        ahead_s: Seconds ahead.

    Raises:
        ValueError: Clips have one frame, and so no step.
    """
    pace, turn = measure_speed(batch), -estimate_heading_before(batch.pose[:, -2]) / step_s(batch)
    return torch.stack([torch.ones_like(pace), pace * ahead_s, turn * ahead_s], dim=1)


def fit_median(inputs: Tensor, outputs: Tensor) -> Tensor:
    """Return the matrix (n, 3) that maps inputs to waypoints with the smallest sum of distances.

    It is found by iteratively reweighted least squares (Weiszfeld, 1937), with a floor of 5 cm.

    Args:
        inputs: Inputs (B, n).
        outputs: Waypoints (B, 3).
    """
    weight = torch.ones_like(outputs[:, :1])
    for _ in range(_TIMES):
        root = weight.sqrt()
        found: Tensor = torch.linalg.lstsq(inputs * root, outputs * root, driver="gelsd").solution
        off = torch.linalg.vector_norm((inputs @ found - outputs)[:, :2], dim=1, keepdim=True)
        weight = 1 / off.clamp_min(_NEAR_M)
    return found


@torch.inference_mode()
def measure_waypoints(
    model: WaypointModel, clips: Sequence[TrajectoryBatch], mean: Tensor, linear: Tensor
) -> dict[str, list[float]]:
    """Measure the mean errors in metres and in degrees; rows that only pad a batch do not count.

    Args:
        model: The model.
        clips: Batches of clips.
        mean: See `collect_known_guesses`.
        linear: See `collect_known_guesses`.

    Returns:
        The errors of the model, as "model", and of the baselines by name.
    """
    ahead_s = model.config.ahead_s
    made: dict[str, list[Tensor]] = {}
    for batch in clips:
        real = slice(None) if batch.weight is None else batch.weight > 0
        guesses = {
            "model": model.waypoints(batch),
            STRAIGHT: keep_up(batch, ahead_s, turning=False),
            KEPT_UP: keep_up(batch, ahead_s, turning=True),
            MEAN: mean.expand(len(batch), -1),
            LINEAR: measure_motion(batch, ahead_s) @ linear,
        }
        for name, guess in guesses.items():
            made.setdefault(name, []).append(measure_errors(guess, batch.waypoint)[real])
    return {name: torch.cat(parts).double().mean(dim=0).tolist() for name, parts in made.items()}


def measure_errors(made: Tensor, true: Tensor) -> Tensor:
    """Return the distance in metres and the angle in degrees between waypoints (B, 3): (B, 2).

    Args:
        made: Predicted waypoints.
        true: True waypoints.
    """
    place = torch.linalg.vector_norm(made[:, :2] - true[:, :2], dim=1)
    turn = made[:, 2] - true[:, 2]
    return torch.stack([place, torch.rad2deg(torch.atan2(turn.sin(), turn.cos()).abs())], dim=1)


def keep_up(batch: TrajectoryBatch, ahead_s: float, *, turning: bool) -> Tensor:
    """Return the waypoints (B, 3) of continuing at the speed of the clip's last step and, if `turning`, with its turn.

    Args:
        batch: Batch of clips.
        ahead_s: Seconds ahead.
        turning: Whether to continue the turn.

    Raises:
        ValueError: Clips have one frame, and so no step.
    """
    _, way, turn = measure_motion(batch, ahead_s).unbind(dim=1)
    turn = turn if turning else torch.zeros_like(turn)
    # On an arc of length `way` that turns by `turn`: sin(x) / x, which is 1 for no turn.
    half = turn / 2
    chord = way * torch.sinc(half / torch.pi)
    return torch.stack([chord * half.sin(), chord * half.cos(), turn], dim=1)


def estimate_heading_before(pose: Tensor) -> Tensor:
    """Return how far to the right cameras at poses (B, 7), in the current camera's axes, look: radians (B,)."""
    w, x, y, z = pose[:, 3:].unbind(dim=1)
    return torch.atan2(2 * (x * z + w * y), 1 - 2 * (x * x + y * y))


EVALUATIONS = {WaypointConfig: evaluate}
