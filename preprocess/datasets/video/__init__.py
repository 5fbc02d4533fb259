"""Datasets of videos, in the layouts of their publishers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.datasets.folder import folder
from maskstream.preprocess.datasets.parquet_media import parquet_video

from .fluent_emoji import fluent_emoji
from .hmdb51 import hmdb51
from .k400 import k400
from .lerobot import lerobot
from .metaworld import metaworld
from .moving_fashion_mnist import moving_fashion_mnist
from .rawframes import rawframes
from .sample import sample
from .ssv2 import ssv2
from .ucf101 import ucf101
from .video_list import video_list
from .wesnoth_units import wesnoth_units

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "sample": sample,
    "k400": k400,
    "k600": partial(k400, name="k600"),
    "k700": partial(k400, name="k700"),
    "ssv2": ssv2,
    "ucf101": ucf101,
    "hmdb51": hmdb51,
    "fluent-emoji": fluent_emoji,
    "lerobot": lerobot,
    "metaworld": metaworld,
    "moving-fashion-mnist": moving_fashion_mnist,
    "wesnoth-units": wesnoth_units,
    "video-list": video_list,
    "rawframes": rawframes,
    "folder": folder,
    "parquet-video": parquet_video,
}
