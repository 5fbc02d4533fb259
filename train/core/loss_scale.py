"""The factor of the loss in float16, whose gradients would otherwise be too small to be numbers.

torch's GradScaler does the same for the gradients of one process. Here the norm of all gradients, which is the same on
all ranks however weights are shared, decides whether they have overflowed.
"""

from __future__ import annotations

from dataclasses import dataclass

GROWTH, BACKOFF, INTERVAL, FIRST = 2.0, 0.5, 2000, 65536.0
"""As in torch.amp.GradScaler."""


@dataclass(kw_only=True, slots=True)
class LossScale:
    """value: the factor. good_steps: how many steps in a row have not overflowed since it last changed."""

    value: float = FIRST
    good_steps: int = 0

    def update(self, *, overflowed: bool) -> None:
        """Halves the factor after an overflow, and doubles it after `INTERVAL` steps without one."""
        if overflowed:
            self.value, self.good_steps = self.value * BACKOFF, 0
            return
        self.good_steps += 1
        if self.good_steps == INTERVAL:
            self.value, self.good_steps = self.value * GROWTH, 0
