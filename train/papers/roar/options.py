"""The settings of recursive ROAR."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from maskstream.shards.flag import DataFlag, ModelFlag, split_list
from maskstream.shards.limits import check_fields


@dataclass(frozen=True, kw_only=True, slots=True)
class RoarSettings:
    """How measures of importance are compared. Each seed has its own weights, order and random scores."""

    measures: Annotated[
        Sequence[str],
        ModelFlag(
            "Measures, separated by commas: gradient, input-x-gradient, integrated-gradients, attention [default: all "
            "that the model has].",
            metavar="NAMES",
            parse=split_list,
        ),
    ] = ()
    seeds: Annotated[
        int, ModelFlag("Training runs per level, with different initial weights and sample orders.", min=1)
    ] = 3
    step: Annotated[
        int, ModelFlag("Percentage of the tokens from one level to the next, a divisor of 100.", min=1, max=50)
    ] = 10
    recursive: Annotated[
        bool, ModelFlag("Rank the tokens of a level with the model of the previous level, not with the first one.")
    ] = True
    samples: Annotated[int, DataFlag("Maximum number of test texts.", min=1)] = 2048
    points: Annotated[int, ModelFlag("Number of points of integrated gradients.", min=1)] = 20
    steps: Annotated[int | None, ModelFlag("Steps per training [default: the recipe's].", min=1)] = None

    def __post_init__(self) -> None:
        check_fields(self)
        if 100 % self.step:
            raise ValueError(f"step must be a divisor of 100, from 1 to 50 per cent, got {self.step}")

    @property
    def levels(self) -> tuple[int, ...]:
        """Per cent of the tokens that are hidden, from 0 to 100."""
        return tuple(range(0, 101, self.step))
