"""Errors of predicted waypoints on held-out walks, in metres and degrees, and those of guesses that know how one walks.

Four guesses: a walk straight on at the speed of the clip's last step; the same with its turn kept up, on an arc; the
mean waypoint of the training split; and the linear map of that speed and turn which is least off on the training split.
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
    "Held-out walks, seen from above with the camera now at the large wedge, looking upwards. The model saw the "
    "frames, and predicted where the walk is a little later and where it then looks. Wedges point to where the camera "
    "looks. Grey points are what the depth of the last frame shows between knees and head; up to them the floor is "
    "free."
)
ROUNDS = 8
_TIMES, _NEAR_M = 30, 0.05


def evaluate(model: WaypointModel, config: TrajectoryData, data: Manifest, shown: int) -> Evaluation:
    """The errors on a held-out split, compared with the guesses, and waypoints of the first walks."""
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
            name="The mean distance of predicted and true places in metres, plus the mean angle of the turns in "
            "radians",
            baseline=f"guessing {STRAIGHT}",
            value=straight[0] + straight[1] * torch.pi / 180,
        ),
        learns="A model of waypoints learns from walks where a person would be a little later.",
    )


def collect_held_out_clips(config: TrajectoryData, data: Manifest) -> list[TrajectoryBatch]:
    """Clips of all walks of a split at random moments, whole and not mirrored; the same at each call."""
    n = len(data)
    rounds = max(min(ROUNDS, MEASURED // n), 1)
    whole = replace(config, mask=None, views=1, colour=None)
    return list(read_batches(whole, data, size=min(n, 64), samples=n, rounds=rounds))


def collect_known_guesses(config: TrajectoryData, data: Manifest) -> tuple[Tensor, Tensor]:
    """What guesses know of the split that was trained on: its mean waypoint, float32 (3,), and the map of
    `measure_motion` to waypoints, float32 (3, 3), that is least off.
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
    """What the clips' last step says, float32 (B, 3): 1, and metres and turn ahead if speed and turn are kept up.

    ValueError for clips of one frame, which have no step.
    """
    pace, turn = measure_speed(batch), -estimate_heading_before(batch.pose[:, -2]) / step_s(batch)
    return torch.stack([torch.ones_like(pace), pace * ahead_s, turn * ahead_s], dim=1)


def fit_median(inputs: Tensor, outputs: Tensor) -> Tensor:
    """The matrix (n, 3) by which `inputs` (B, n) are least off from waypoints `outputs` (B, 3).

    The sum of distances is least by least squares that are weighted anew (Weiszfeld, 1937), with a floor of 5 cm.
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
    """The mean errors in metres and in degrees of the model, as "model", and of the guesses by name; rows that only pad
    a batch do not count.

    mean, linear: see `collect_known_guesses`.
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
    """Of waypoints (B, 3) the distance in metres and the angle in degrees, (B, 2)."""
    place = torch.linalg.vector_norm(made[:, :2] - true[:, :2], dim=1)
    turn = made[:, 2] - true[:, 2]
    return torch.stack([place, torch.rad2deg(torch.atan2(turn.sin(), turn.cos()).abs())], dim=1)


def keep_up(batch: TrajectoryBatch, ahead_s: float, *, turning: bool) -> Tensor:
    """The waypoints (B, 3) of walks that keep up the speed of the clip's last step and, if `turning`, its turn.

    ValueError for clips of one frame, which have no step.
    """
    _, way, turn = measure_motion(batch, ahead_s).unbind(dim=1)
    turn = turn if turning else torch.zeros_like(turn)
    # On an arc of length `way` that turns by `turn`: sin(x) / x, which is 1 for no turn.
    half = turn / 2
    chord = way * torch.sinc(half / torch.pi)
    return torch.stack([chord * half.sin(), chord * half.cos(), turn], dim=1)


def estimate_heading_before(pose: Tensor) -> Tensor:
    """How far to the right a camera at poses (B, 7), on the axes of the one now, looks: radians (B,)."""
    w, x, y, z = pose[:, 3:].unbind(dim=1)
    return torch.atan2(2 * (x * z + w * y), 1 - 2 * (x * x + y * y))


EVALUATIONS = {WaypointConfig: evaluate}
