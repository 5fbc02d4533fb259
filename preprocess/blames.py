"""Which units of a task ended a process, and what follows from it.

A worker reports which source it attempts, so a fault or a passed limit is blamed on that source and not on its task.
The next process tries the suspect first, alone; blamed twice, it is a reject. SIGKILL comes from outside and is no
verdict.
"""

from __future__ import annotations

from dataclasses import dataclass

from .encode.reject import RejectError


@dataclass(frozen=True, slots=True)
class Blames:
    """The units that ended a process while they were worked on, with the reasons, in order.

    A unit that did so once is a suspect: what ran before it may have damaged the process. One that does so again is a
    reject.
    """

    reasons: tuple[tuple[str, str], ...] = ()

    def plus(self, unit: str, reason: str) -> Blames:
        """These and another one."""
        return Blames((*self.reasons, (unit, reason)))

    @property
    def suspects(self) -> list[str]:
        """The units that are blamed once, the last one first."""
        units = [unit for unit, _ in reversed(self.reasons)]
        return [unit for unit in units if units.count(unit) == 1]

    def check(self, unit: str) -> None:
        """Raise RejectError if a unit is blamed twice."""
        found = [reason for blamed, reason in self.reasons if blamed == unit]
        if len(found) > 1:
            raise RejectError("decode", f"{found[-1]}, twice")


NO_BLAMES = Blames()
