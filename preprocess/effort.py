"""What a task cost: where and when it ran, its time, and what had to be done again."""

from __future__ import annotations

import socket
import time
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """The last run of a task. `began_s` is a time in seconds since 1970; `cpu_s` counts all threads of its process.

    retries: pauses because a source could not be read. restarts: processes that died of the task in the same job run.
    """

    machine: str
    began_s: float
    wall_s: float
    cpu_s: float
    retries: int = 0
    restarts: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Effort:
        return cls(**data)


class EffortClock:
    """Measures a task from now on."""

    def __init__(self) -> None:
        self.retries = 0
        self._began_s, self._wall_s, self._cpu_s = time.time(), time.monotonic(), time.process_time()

    def effort(self) -> Effort:
        """The effort until now."""
        return Effort(
            machine=socket.gethostname(),
            began_s=round(self._began_s, 3),
            wall_s=round(time.monotonic() - self._wall_s, 3),
            cpu_s=round(time.process_time() - self._cpu_s, 3),
            retries=self.retries,
        )
