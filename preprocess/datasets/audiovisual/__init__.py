"""Datasets of videos with sound, in the layouts of their publishers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from maskstream.preprocess.datasets.audio.audioset import audioset
from maskstream.preprocess.datasets.dataset import Dataset

from .audiovisual_folder import audiovisual_folder
from .vggsound import vggsound

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "audioset-video": partial(audioset, videos=True),
    "vggsound": vggsound,
    "audiovisual-folder": audiovisual_folder,
}
