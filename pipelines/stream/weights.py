"""Weights of the parts of a mixture: numbers, schedules over the run, or by the sizes of the parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from sys import float_info
from typing import Any, Literal

import numpy as np

from maskstream.shards.arrays import Int64s
from maskstream.shards.config import Config
from maskstream.shards.limits import PositiveFloat

from .samples import Stream
from .shares import Schedule, find_schedules, list_points

Unit = Literal["samples", "tokens"]
"""Unit of mixture weights: samples or visible tokens."""


@dataclass(frozen=True, kw_only=True)
class MixOptions:
    """How the parts of a mixture share batches, besides their weights.

    Attributes:
        unit: Unit of the weights: "samples", or visible "tokens" of packed rows.
        batches: Batches per epoch of a mixture; by default as many as the samples of all parts fill.
        epochs: Largest number of epochs of each part of a mixture, None for no limit; beyond it the other parts fill
            its share.
    """

    unit: Unit = "samples"
    batches: int | None = None
    epochs: Sequence[float | None] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BySize(Config):
    """Weight n ** (1 / temperature) of a source with n samples.

    At temperature 1, all samples are equally likely; the higher the temperature, the more equal the sources. Source:
    multilingual pre-training, such as mT5 (Xue et al. 2021).

    Attributes:
        temperature: A number, or a schedule over the run.
    """

    temperature: PositiveFloat | Schedule = 1.0


Weight = int | float | Schedule | BySize
"""Weight of a part of a mixture, relative to the other parts."""


def compute_weight_at(weight: Weight, size: int, progress: float) -> float:
    """Return the weight of a source of `size` samples at a progress of the run."""
    if isinstance(weight, BySize):
        warm = weight.temperature
        if not (temperature := warm.at(progress) if isinstance(warm, Schedule) else warm) > 0:
            raise ValueError(f"{weight} is {temperature:g} at progress {progress:.6g}: a temperature must be above 0")
        try:
            return float(size ** (1 / temperature))
        except OverflowError as error:
            raise ValueError(
                f"{weight}: {size} ** (1 / {temperature:g}) is too large; use a higher temperature"
            ) from error
    return weight.at(progress) if isinstance(weight, Schedule) else float(weight)


def points_of_change(weights: Sequence[Weight]) -> tuple[float, ...] | None:
    """Return the progress values at which weights bend or jump; None if all are constant."""
    return list_points([one for weight in weights if isinstance(weight, Config) for one in find_schedules(weight)])


def check_weights(weights: Sequence[Weight], epochs: Sequence[float | None] | None, sizes: Sequence[int]) -> None:
    """Raise ValueError for weights or epochs that are not allowed, or if all parts end."""
    for weight in weights:
        if isinstance(weight, Schedule | BySize):
            continue
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= float_info.max:
            raise ValueError(
                "weights must be numbers above 0, schedules such as masks.Linear, or BySize, got "
                f"{weight!r:.80}; leave out sources that should not contribute"
            )
    if epochs is None:
        return
    if len(epochs) != len(weights):
        raise ValueError(f"epochs={tuple(epochs)}: pass one for each of {len(weights)} sources, None for any number")
    for most, size in zip(epochs, sizes, strict=True):
        if most is not None and not 1 <= most * size < 1 << 63:
            raise ValueError(
                f"epochs={most!r:.80}: each must be None, or a number above 0 that covers at least one of {size} "
                "samples"
            )
    if None not in epochs:
        raise ValueError(f"epochs={tuple(epochs)}: all sources end, but at least one needs None")


def describe_part_identity(weight: Weight, epochs: float | None, part: Stream) -> dict[str, Any]:
    """Return the JSON-able settings of a part that a saved position depends on."""
    return {
        "weight": weight.to_dict(identity=True) if isinstance(weight, Config) else weight,
        **({} if epochs is None else {"epochs": epochs}),
        **{name: value for name, value in part.identity().items() if name not in ("version", "global_batch")},
    }


def find_part(starts: Int64s, index: int) -> tuple[int, int]:
    """Return the part that contains sample `index`, and the sample's index in that part."""
    part = int(np.searchsorted(starts, index, side="right")) - 1
    return part, index - int(starts[part])
