"""Ratio schedules: how many tokens are hidden. The files declare the schedules used in papers."""

from maskstream.pipelines.masks.core import Fixed, PaperSchedule

from . import progress, random

SCHEDULES: tuple[PaperSchedule, ...] = (
    PaperSchedule(
        schedule=Fixed(ratio=0.9),
        title="A number",
        note="The same ratio for every sample; patterns accept a number, such as `ratio=0.9`, as a shorthand.",
    ),
    *random.SCHEDULES,
    *progress.SCHEDULES,
)
"""Published ratio schedules."""
