"""No test but those marked `gpu` finds a card: on a machine with one, `make test` is what it is elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from maskstream.pipelines.stream.topology import resolve_device

ROOT = Path(__file__).parents[1]
WITH_A_CARD = (
    "tests/pipelines/stream/test_topology.py",
    "tests/pipelines/stream/test_loader.py",
    "tests/pipelines/modalities/image/test_image.py",
    "tests/pipelines/modalities/video/test_dali.py",
    "tests/pipelines/modalities/video/test_decoders.py",
    "tests/pipelines/flow/test_ofa.py",
    "tests/pipelines/masks/test_motion_on_device.py",
)


def test_no_test_finds_a_card_unless_it_is_marked() -> None:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert resolve_device("auto") == torch.device("cpu")


@pytest.mark.slow
def test_no_test_fails_because_a_card_is_there() -> None:
    """Those that leave the device at "auto", or look at what a card's machine has; `make test` under the plugin."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "tests.pretended_card", "-p", "no:cacheprovider", "-n", "0"]
    done = subprocess.run([*words, *WITH_A_CARD], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "needs a card" in done.stdout
