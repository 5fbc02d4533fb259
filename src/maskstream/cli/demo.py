"""`maskstream demo`."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from maskstream.shards.named import nearest

from .terminal import say


def demo(
    modality: Annotated[
        str,
        typer.Argument(help="video, audio, audiovisual, image, image-text, text, points, mesh, pose or trajectory."),
    ] = "video",
) -> None:
    """Make shards of a modality, train on them for a few minutes, and write pages about data and model.

    It prints the commands that it runs, and writes to data/ and runs/ in the current folder. If it was interrupted, the
    same command continues.
    """
    from maskstream.modalities import MODALITIES

    demos = {name: one.demo for name, one in MODALITIES.items() if one.demo is not None}
    if modality not in demos:
        close = nearest(modality, list(demos))
        raise ValueError(f"there is no demo of {modality!r}{close}; legal are {', '.join(demos)}")
    pages = []
    for command in demos[modality].commands(modality):
        say(f"maskstream {shlex.join(command)}")
        ended = subprocess.run([sys.executable, "-m", "maskstream", *command], check=False)
        if ended.returncode:
            raise typer.Exit(ended.returncode)
        pages += [word for word in command if word.endswith(".html")]
    for page in pages:
        say(f"open {Path(page)}")
