"""Datasets of videos, in the layouts of their publishers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.datasets.folder import folder
from maskstream.preprocess.datasets.parquet_media import parquet_video

from .hmdb51 import hmdb51
from .k400 import k400
from .lerobot import lerobot
from .rawframes import rawframes
from .ssv2 import ssv2
from .ucf101 import ucf101
from .video_list import video_list

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "k400": k400,
    "k600": partial(k400, name="k600"),
    "k700": partial(k400, name="k700"),
    "ssv2": ssv2,
    "ucf101": ucf101,
    "hmdb51": hmdb51,
    "lerobot": lerobot,
    "video-list": video_list,
    "rawframes": rawframes,
    "folder": folder,
    "parquet-video": parquet_video,
}
