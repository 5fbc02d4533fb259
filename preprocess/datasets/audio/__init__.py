"""Datasets of sounds, in the layouts of their publishers."""

from collections.abc import Callable
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.datasets.parquet_media import parquet_audio

from .audio_folder import audio_folder
from .audio_json import audio_json
from .audioset import audioset
from .esc50 import esc50
from .librispeech import librispeech
from .microphones import microphones

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "audioset": audioset,
    "esc50": esc50,
    "librispeech": librispeech,
    "microphones": microphones,
    "audio-folder": audio_folder,
    "parquet-audio": parquet_audio,
    "audio-json": audio_json,
}
