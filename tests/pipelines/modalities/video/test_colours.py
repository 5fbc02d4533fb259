"""Colour jitter of clips: one change of colours for all frames of a view."""

from dataclasses import replace

import numpy as np
import pytest

from maskstream.pipelines import VideoClip
from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.modalities.video.data import VideoData

from ...every_modality import write_split

PLAIN = VideoData(clip=VideoClip(frames=4, stride=1, size=32), augment=CenterCrop(), patch=8, views=2)
JITTER = ColourJitter(brightness=0.3, contrast=0.3, saturation=0.0)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split("video", tmp_path_factory.mktemp("video"))


def clips(data, split):
    loader = data.loader(split, batch_size=2, seed=3, device="cpu", rank=0, world_size=1, threads=1)
    batch = next(iter(loader))
    loader.close()
    return batch.video.numpy()


def test_all_frames_of_a_view_get_the_colours_that_are_drawn_for_it(split):
    plain, changed = clips(PLAIN, split), clips(replace(PLAIN, colour=JITTER), split)
    assert np.array_equal(changed, clips(replace(PLAIN, colour=JITTER), split))
    lines = []
    for before, after in zip(plain.astype(np.float64), changed.astype(np.float64), strict=True):
        kept = (after > 0) & (after < 255)
        fits = [np.polyfit(before[f][kept[f]], after[f][kept[f]], 1) for f in range(4)]
        assert np.ptp([slope for slope, _ in fits]) < 0.05  # brightness and contrast are one line of grey
        lines.append(np.mean(fits, axis=0))
    assert np.ptp([slope for slope, _ in lines]) > 0.1
    assert not np.allclose(lines[0], lines[1], atol=0.02), "each view has its own"


def test_dali_is_refused():
    with pytest.raises(ValueError, match="runs on the CPU"):
        replace(PLAIN, colour=JITTER, backend="dali")
