"""A plugin for pytest (`-p tests.pretended_card`) that answers as a machine with an H100 does.

It answers what a test asks of a card without touching it: whether there is one, its name, and whether the driver's
libraries load. A tensor on the device is still an error.
"""

import pytest
import torch

from maskstream.pipelines.decode import nvdec
from maskstream.pipelines.modalities.video import packing

CARD = "NVIDIA H100 80GB HBM3"


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
