"""A dataset whose encoder takes one clip of it badly; a module of its own, so that processes can import it."""

import ctypes
import itertools
from dataclasses import dataclass, replace

from maskstream.preprocess.datasets import DATASETS
from maskstream.preprocess.encode.video.encoder import VideoEncoder


def spin():
    for _ in itertools.count():
        pass


FAULTS = {"segfault": lambda: ctypes.string_at(0), "hang": spin, "none": int}
POISON = "a/05.mp4"


@dataclass(frozen=True, slots=True)
class Poisoned(VideoEncoder):
    fault: str = "none"

    def encode(self, source):
        if source.id.endswith(POISON):
            FAULTS[self.fault]()
        return VideoEncoder.encode(self, source)


def poisoned(fault):
    """The dataset `folder` with this fault in one clip."""

    def dataset(root):
        raw = DATASETS["folder"](root)
        return replace(raw, encoder=Poisoned(raw.encoder.video, fault=fault))

    return dataset
