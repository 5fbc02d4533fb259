"""A mask that the user has invented, in a package of one's own: shown beside the tube, and trained with.

The user writes a paper about masks that spare the middle of the picture, then about one that looks at it.
"""

import json
import re
from pathlib import Path

import pytest
import torch

from maskstream.pipelines import VideoClip, video_loader

from .conftest import Command, texture, write_video

DOCS = Path(__file__).parents[2] / "docs/masks.md"
PACKAGE = '''
from dataclasses import dataclass

import numpy as np

from maskstream.pipelines import masks
from maskstream.pipelines.masks import Mask


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame(Mask):
    """Hides the border: all tokens that are nearer than `width` to an edge of the picture, at all times."""

    width: int = 1

    def hide(self, grid, draw):
        _, rows, columns = grid.shape
        inside = np.zeros(grid.shape, bool)
        inside[:, self.width : rows - self.width, self.width : columns - self.width] = True
        return ~inside.ravel()


@dataclass(frozen=True, kw_only=True, slots=True)
class Loud(Mask):
    """Wants what a video without sound does not have."""

    needs = frozenset({"spectrogram"})

    def hide(self, grid, draw):
        return draw.cues.spectrogram.ravel() > 0
'''


@pytest.mark.slow
def test_an_own_mask_is_seen_compared_and_trained(
    maskstream: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (edges,) = re.findall(r"```python\n(@dataclass[^\n]*\nclass Edges.*?)```", DOCS.read_text(), re.DOTALL)
    (tmp_path / "bordermask.py").write_text(f"{PACKAGE}\n\n{edges}")
    monkeypatch.syspath_prepend(str(tmp_path))
    for number in range(6):
        write_video(tmp_path / f"raw/{'ab'[number % 2]}/{number}.mp4", [texture(number)] * 40)
    maskstream("shards folder --root raw --out shards --workers 1")
    small = "--set clip.frames=4 --set clip.size=32 --set patch=8"
    maskstream(f"preview shards/train --mask bordermask:Frame --mask tube --samples 2 --out page.html {small}")
    page = (tmp_path / "page.html").read_text()
    assert "Frame" in page
    assert "Tube" in page

    from bordermask import Frame

    clip = VideoClip(frames=4, stride=4, size=32)
    batch = next(iter(video_loader(tmp_path / "shards/train", clip=clip, mask=Frame(), patch=8, batch_size=2, seed=0)))
    tokens = [time * 16 + row * 4 + column for time in range(2) for row in (1, 2) for column in (1, 2)]
    assert batch.mask.visible.tolist() == [tokens] * 2

    cut = "--set clip.frames=4 --set clip.size=32 --set data.patch=8 --set batch_size=2"
    for name, words in {"own": "--set mask.kind=bordermask:Frame", "tube": ""}.items():
        maskstream(f"train videomae-tiny --data shards/train --out {name} --steps 3 {cut} {words}")
    about = json.loads((tmp_path / "own/run.json").read_text())["recipe"]
    assert "bordermask:Frame" in json.dumps(about)
    look_at_pixels(maskstream, tmp_path, small, cut)

    wrong = maskstream(f"preview shards/train --mask bordermask:Loud --out page.html {small}", fails=True).text
    assert (
        "cannot be drawn on the tokens of video, which have no spectrogram (their cues: cuts, energy, flow, frames)"
        in wrong
    )
    wrong = maskstream(
        f"train videomae-tiny --data shards/train --out loud {cut} --set mask.kind=bordermask:Loud", fails=True
    )
    have = "but videos have only cuts, energy, flow, frames; use a different mask"
    assert f"Loud() needs spectrogram, {have}" in wrong.text
    wrong = maskstream("preview shards/train --mask bordermask:Edge", fails=True).text
    assert "bordermask has no 'Edge', did you mean 'Edges'?; it has Frame, Loud, Edges" in wrong


def look_at_pixels(maskstream: Command, folder: Path, small: str, cut: str) -> None:
    """The mask of the docs that looks at pixels: seen beside the tube, drawn of each clip's pixels, trained with."""
    maskstream(f"preview shards/train --mask bordermask:Edges --mask tube --samples 2 --out edges.html {small}")
    assert "Edges" in (folder / "edges.html").read_text()

    from bordermask import Edges

    clips = {"clip": VideoClip(frames=4, stride=4, size=32), "patch": 8, "batch_size": 4}
    batch = next(iter(video_loader(folder / "shards/train", mask=Edges(), **clips)))
    for clip, hidden in zip(batch.video.float().mean(-1), batch.mask.masked, strict=True):
        down, right = torch.gradient(clip, dim=(1, 2))
        cubes = (down.abs() + right.abs()).unflatten(0, (2, 2)).unflatten(2, (4, 8)).unflatten(4, (4, 8))
        tokens = cubes.sum((1, 3, 5)).ravel()
        assert tokens[hidden].max() <= tokens[~hidden].min()
        assert int(hidden.sum()) == 24
    maskstream(f"gallery --data shards/train --mask bordermask:Edges --samples 2 --out gallery.html {small}")
    gallery = (folder / "gallery.html").read_text()
    assert gallery.count("name: bordermask:Edges<") == 2
    assert "name: tube<" in gallery
    alone = maskstream("gallery --mask bordermask:Edges", fails=True).text
    assert "--mask bordermask:Edges is drawn on the samples of a split; pass a split with --data" in alone
    maskstream(f"train videomae-tiny --data shards/train --out edges --steps 2 {cut} --set mask.kind=bordermask:Edges")
