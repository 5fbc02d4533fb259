"""What the ten users have in common: a folder, the command, and small media whose every frame can be told."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
import numpy.typing as npt
import pytest

from maskstream.cli import main

Pixels = npt.NDArray[np.uint8]
WIDTH, HEIGHT = 64, 48


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What a command printed: its output, and output and errors with single spaces."""

    out: str
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Command(Protocol):
    """`maskstream` and these words, in the user's folder; fails: whether it is to end with an error."""

    def __call__(self, line: str, *, fails: bool = False) -> Said: ...


@pytest.fixture
def maskstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs commands as they stand in a terminal, in tmp_path."""
    return command_in(tmp_path, monkeypatch)


def command_in(folder: Path, patch: pytest.MonkeyPatch) -> Command:
    """Runs commands in a folder. None may end with a traceback."""

    def run(line: str, *, fails: bool = False) -> Said:
        patch.setattr("sys.argv", ["maskstream", *shlex.split(line)])
        out, errors = StringIO(), StringIO()
        with chdir(folder), redirect_stdout(out), redirect_stderr(errors), pytest.raises(SystemExit) as ended:
            main()
        said = Said(out=out.getvalue(), text=" ".join((out.getvalue() + errors.getvalue()).split()))
        print(f"$ maskstream {line}\n{out.getvalue()}{errors.getvalue()}")
        assert bool(ended.value.code) == fails, said.text
        assert "Traceback" not in said.text
        return said

    return run


def write_video(path: Path, pictures: Iterable[Pixels], rate: int = 25) -> Path:
    """An H.264 file of pictures, RGB (48, 64, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "12"})
        stream.codec_context.thread_count, stream.pix_fmt = 1, "yuv420p"
        stream.width, stream.height = WIDTH, HEIGHT
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def plain(level: int) -> Pixels:
    """A picture of one grey."""
    return np.full((HEIGHT, WIDTH, 3), level, np.uint8)


def texture(seed: int) -> Pixels:
    """Blocks of noise in grey."""
    blocks = np.random.default_rng(seed).integers(60, 255, (HEIGHT // 8, WIDTH // 8, 1), dtype=np.uint8)
    return np.repeat(np.repeat(np.repeat(blocks, 8, 0), 8, 1), 3, 2)
