"""A trace of some steps from torch's profiler."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from maskstream.shards.stores.local_files import publish

from .hook import Hook, StepEvent


class StepProfile(Hook):
    """Traces the steps `first` to `last`, counted from 1, into the folder `profile` of a run, for Perfetto or
    chrome://tracing.

    A run that ends before the last step writes the trace so far. This hook is the last one, so that the trace includes
    the work of the other hooks after these steps.
    """

    timed = ""

    def __init__(self, run: Path, steps: tuple[int, int]) -> None:
        self._folder, self._steps = run / "profile", steps
        self._running: profile | None = None

    def before(self, event: StepEvent) -> None:
        """Start the trace at the first step."""
        if event.step == self._steps[0]:
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (event.run.device.type == "cuda")
            self._running = profile(activities=activities, record_shapes=True)
            self._running.start()

    def is_due(self, event: StepEvent) -> bool:
        """Return whether this step is the last one to trace."""
        return event.step == self._steps[1]

    def after(self, event: StepEvent) -> None:
        """Write the trace."""
        self.close()

    def close(self) -> None:
        """Write the trace, if there is one."""
        running, self._running = self._running, None
        if running is None:
            return
        running.stop()
        self._folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "trace.json"
            running.export_chrome_trace(str(path))
            name = f"steps-{self._steps[0]}-{self._steps[1]}.json.gz"
            publish(self._folder / name, gzip.compress(path.read_bytes()))
