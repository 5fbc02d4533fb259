"""A trace of some steps by torch's profiler."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from maskstream.shards.stores.local_files import publish

from .hook import Hook, RunState, StepEvent


class StepProfile(Hook):
    """Writes a trace of the steps `first` to `last`, counted from 1, into the folder `profile` of a run, for Perfetto
    or chrome://tracing. A run that ends meanwhile writes what it has. It is the last of the hooks, so that the trace
    has all that the others do in these steps.
    """

    timed = ""

    def __init__(self, run: Path, steps: tuple[int, int]) -> None:
        self._folder, self._steps = run / "profile", steps
        self._running: profile | None = None
        self._begins = False

    def begin(self, run: RunState) -> None:
        """Begins where the run does."""
        self._activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if run.device.type == "cuda" else [])
        self._begins = run.step + 1 == self._steps[0]

    def __enter__(self) -> StepProfile:
        if self._begins:
            self._start()
        return self

    def is_due(self, event: StepEvent) -> bool:
        """Whether the next step is the first, or this one the last."""
        return event.step in (self._steps[0] - 1, self._steps[1])

    def after(self, event: StepEvent) -> None:
        """Begins or writes the trace."""
        if event.step == self._steps[1]:
            self.close()
        else:
            self._start()

    def close(self) -> None:
        """Writes the trace, if there is one."""
        running, self._running, self._begins = self._running, None, False
        if running is None:
            return
        running.stop()
        self._folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "trace.json"
            running.export_chrome_trace(str(path))
            name = f"steps-{self._steps[0]}-{self._steps[1]}.json.gz"
            publish(self._folder / name, gzip.compress(path.read_bytes()))

    def _start(self) -> None:
        self._running = profile(activities=self._activities, record_shapes=True)
        self._running.start()
