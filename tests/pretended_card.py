"""Answers as a machine with an H100 does: a plugin for pytest (`-p tests.pretended_card`), and a script that runs the
steps of `make gpu` on a CPU (`python tests/pretended_card.py`).

It answers what a test or a step asks of a card without touching it: whether there is one, its name, its driver, and
whether the driver's libraries load. A tensor on the device is still an error.
"""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from maskstream.pipelines.decode import nvdec
from maskstream.pipelines.flow import Ofa
from maskstream.pipelines.modalities.video import packing

CARD, DRIVER = "NVIDIA H100 80GB HBM3", "580.65.06"
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def pytest_configure() -> None:
    """Torch and the driver answer as with a card."""
    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: 1
    torch.cuda.current_device = lambda: 0
    torch.cuda.get_device_name = lambda device=None: CARD
    nvdec.missing_libraries = packing.missing_libraries = list


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that is marked `gpu` is skipped."""
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a card"))


def answers() -> Iterator[tuple[Any, str, Any]]:
    """What the steps of `make gpu` ask of a card: objects, names of their attributes, and their values."""
    rig, steps = import_module("gpu_rig"), import_module("gpu_steps")
    found = rig.Rig(card=CARD, device=torch.device("cpu"), cores=rig.cores())
    compiled = torch.nn.Module.compile
    yield rig, "find_rig", lambda: found
    yield steps, "missing_libraries", list
    yield steps, "output_of", lambda *command: DRIVER
    yield Ofa, "missing", lambda self, device: None
    yield torch.nn.Module, "compile", lambda self, **options: compiled(self, backend="eager", **options)


def main() -> None:
    """Runs benchmarks/gpu.py, whose steps run this file again."""
    sys.path.insert(0, str(BENCHMARKS))
    for owner, name, value in answers():
        setattr(owner, name, value)
    import_module("gpu").main()


if __name__ == "__main__":
    main()
