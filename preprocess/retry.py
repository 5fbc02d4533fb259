"""Tries again what failed because files could not be read."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..shards.errors import OutageError

PAUSES_S = (1.0, 5.0, 15.0)
"""The pauses between the attempts to read a file, in seconds."""

ResultT = TypeVar("ResultT")


def retried(
    what: str, attempt: Callable[[], ResultT], pauses_s: Sequence[float], report: Callable[[str], None]
) -> ResultT:
    """The result of `attempt`, which is called again after each of the pauses if it raises OutageError.

    `what` is read in messages, such as "the source 'a.mp4'"; `report` is told of each pause. Raises OutageError if the
    attempt after the last pause fails too.
    """
    for pause_s in pauses_s:
        try:
            return attempt()
        except OutageError as error:
            report(f"{what}: {error}; it is tried again in {pause_s:g} s")
            time.sleep(pause_s)
    try:
        return attempt()
    except OutageError as error:
        raise OutageError(
            f"{what} was tried {len(pauses_s) + 1} times in {sum(pauses_s):g} s, each time in vain: {error}. Nothing "
            "is known to be wrong with its bytes, so it is no reject; mend this and run the same command again, which "
            "continues (leave out --overwrite)"
        ) from error
