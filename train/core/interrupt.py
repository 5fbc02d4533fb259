"""SIGTERM and Ctrl-C as a request to stop after the current step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class StopRequest:
    """A context manager: SIGTERM and the first Ctrl-C set `asked`; a second Ctrl-C interrupts as usual, also where
    SIGINT is ignored, as in a job that a script started in the background.

    SIGTERM may arrive more than once for one stop, from a scheduler to all processes and from torchrun to its ranks.
    Within `saving` one Ctrl-C never interrupts, even if it is the second one, so that an impatient user does not lose
    the checkpoint. Python handles signals in the main thread only; in other threads `asked` stays False.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    @contextmanager
    def saving(self) -> Iterator[None]:
        """A block that the first Ctrl-C within it does not interrupt; the next one does."""
        if signal.SIGINT not in self._previous:
            yield
            return
        before = signal.signal(signal.SIGINT, self._ask)
        try:
            yield
        finally:
            if signal.getsignal(signal.SIGINT) == self._ask:
                signal.signal(signal.SIGINT, before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if number == signal.SIGINT:
            before = self._previous[signal.SIGINT]
            signal.signal(signal.SIGINT, signal.default_int_handler if before == signal.SIG_IGN else before)
