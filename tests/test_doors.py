"""A location becomes a store once, where a command or a function takes it; what is inside gets the open split."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType

import pytest
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.pipelines import image_loader
from maskstream.shards import inspect, read_dataset_json, verify
from maskstream.shards.stores.local import LocalStore
from maskstream.shards.stores.open import open_store

from .pipelines.every_modality import write_split

_DOORS: tuple[CodeType, ...] = (open_store.__code__, LocalStore.__init__.__code__)


def count_calls(use: Callable[[], object]) -> int:
    """How often stores are opened during a use, in any thread."""
    calls = list[CodeType]()

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code in _DOORS:
            calls.append(frame.f_code)

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        use()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return max(map(calls.count, _DOORS))


def load(split: Path) -> None:
    loader = image_loader(split, batch_size=2, device="cpu", threads=1)
    next(iter(loader))
    loader.close()


def run(*arguments: object) -> None:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "use",
    [
        load,
        inspect,
        verify,
        read_dataset_json,
        lambda split: run("inspect", split),
        lambda split: run("preview", split, "--samples", 2, "--out", split.parent / "preview.html"),
        lambda split: run("bench", split, "--seconds", 0.1, "--batch-size", 2),
        lambda split: run(
            "train", "mae-tiny", "--data", split, "--steps", 1, "--batch-size", 4, "--out", split.parent / "run"
        ),
    ],
    ids=["loader", "inspect()", "verify()", "dataset.json", "inspect", "preview", "bench", "train"],
)
def test_the_store_of_a_split_is_opened_once(use: Callable[[Path], object], tmp_path: Path) -> None:
    split = write_split("image", tmp_path)
    assert count_calls(lambda: use(split)) == 1
