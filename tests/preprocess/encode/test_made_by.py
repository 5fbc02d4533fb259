"""What a function of a source makes is encoded like what a file holds, by the encoders that take such a thing."""

from pathlib import Path

import numpy as np
import pytest

from maskstream.preprocess.encode.mesh.encoder import MeshEncoder
from maskstream.preprocess.encode.trajectory.encoder import TrajectoryEncoder
from maskstream.preprocess.encode.video.encoder import DrawnClip, VideoEncoder
from maskstream.preprocess.source import RejectError, Source


def greys(source: Source) -> DrawnClip:
    return DrawnClip(frames=[np.full((32, 48, 3), level, np.uint8) for level in source.meta["levels"]], fps=10)


def test_a_drawn_clip_becomes_a_video():
    drawn = Source(id="a", path=Path("a"), meta={"levels": [40, 80, 120, 160]}, computed=True, made_by=greys)
    made = VideoEncoder().encode(drawn)
    assert made.members["mp4"].facts["n_frames"] == 4
    assert (made.meta["width"], made.meta["height"]) == (48, 32)


def test_another_thing_than_the_encoder_takes_is_refused_by_name():
    source = Source(id="a", path=Path("a"), meta={"levels": [1]}, computed=True, made_by=greys)
    with pytest.raises(TypeError, match="made_by of 'a' returned DrawnClip; this encoder needs Simulation"):
        MeshEncoder().encode(source)


def test_a_walk_that_nothing_records_is_a_reject():
    with pytest.raises(RejectError, match="does not define how to record one"):
        TrajectoryEncoder().encode(Source(id="a", path=Path("a")))
