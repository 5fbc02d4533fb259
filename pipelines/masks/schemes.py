"""Registry of all published masking schemes.

Import it only to list them: a loader imports only its mask's file.
"""

from collections.abc import Callable

from .core import Mask, Scheme
from .patterns import (
    block,
    curriculum,
    dual,
    energy,
    frames,
    joints,
    motion_guided,
    multi_block,
    random,
    shapes,
    strips,
    target_blocks,
    top_scores,
    views,
)
from .text import by_class, diffusion, replace, words

SCHEMES: tuple[Scheme, ...] = (
    *frames.SCHEMES,
    *random.SCHEMES,
    *motion_guided.SCHEMES,
    *energy.SCHEMES,
    *dual.SCHEMES,
    *multi_block.SCHEMES,
    *target_blocks.SCHEMES,
    *curriculum.SCHEMES,
    *block.SCHEMES,
    *views.SCHEMES,
    *strips.SCHEMES,
    *shapes.SCHEMES,
    *joints.SCHEMES,
    *words.SCHEMES,
    *replace.SCHEMES,
    *diffusion.SCHEMES,
    *by_class.SCHEMES,
    *top_scores.SCHEMES,
)
"""Published schemes, collected from the files of the patterns. Add a line for each new file."""

MASKS: dict[str, Callable[[], Mask]] = {s.name: s.make for s in sorted(SCHEMES, key=lambda s: s.name) if s.name}
"""Masks by name, with their paper's settings."""
