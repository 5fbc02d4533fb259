"""Ratio schedules: how many tokens are hidden. The files declare the schedules used in papers."""

from maskstream.pipelines.masks.core import Fixed, PaperLaw

from . import progress, random

LAWS: tuple[PaperLaw, ...] = (
    PaperLaw(
        law=Fixed(ratio=0.9),
        title="A number",
        note="The same ratio for every sample; `ratio=0.9` of a pattern is short for it.",
    ),
    *random.LAWS,
    *progress.LAWS,
)
"""Published ratio schedules."""
