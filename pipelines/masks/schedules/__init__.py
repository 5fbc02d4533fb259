"""Ratio schedules: how many tokens are hidden. The files declare the schedules used in papers."""

from maskstream.pipelines.masks.core import Fixed, PaperSchedule

from . import progress, random

SCHEDULES: tuple[PaperSchedule, ...] = (
    PaperSchedule(
        schedule=Fixed(ratio=0.9),
        title="A number",
        note="The same ratio for every sample; `ratio=0.9` of a pattern is short for it.",
    ),
    *random.SCHEDULES,
    *progress.SCHEDULES,
)
"""Published ratio schedules."""
