"""The errors of pixels."""

from __future__ import annotations

from torch import Tensor

UNIT = "levels of 255"


def error(made: Tensor, true: Tensor) -> float:
    """The root mean squared difference."""
    return float((made.float() - true.float()).square().mean().sqrt())
