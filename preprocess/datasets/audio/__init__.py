"""Datasets of sounds, in the layouts of their publishers."""

from collections.abc import Callable
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.datasets.parquet_media import parquet_audio

from .audio_folder import audio_folder
from .audio_json import audio_json
from .audioset import audioset
from .esc50 import esc50
from .gm_notes import gm_notes
from .librispeech import librispeech
from .microphones import microphones
from .sample_audio import sample_audio
from .sonic_pi import sonic_pi

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "audioset": audioset,
    "esc50": esc50,
    "gm-notes": gm_notes,
    "librispeech": librispeech,
    "microphones": microphones,
    "sonic-pi": sonic_pi,
    "audio-folder": audio_folder,
    "parquet-audio": parquet_audio,
    "audio-json": audio_json,
    "sample-audio": sample_audio,
}
