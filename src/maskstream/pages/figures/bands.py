"""The rows of a spectrogram: what they stand for, in words, and labels beside them."""

from __future__ import annotations

import math
from itertools import takewhile

import torch

from maskstream.pipelines.modalities.audio.spectrogram import C1_HZ, Features, Librosa

from .chart import Tick

_LEAST_GAP = 0.11  # of the height, between two labels
_TONES_HZ = (125, 250, 500, 1000, 2000, 4000, 8000, 16000)
_NOTES = ("C", "D", "E", "F#", "G#", "A#")
_TEMPOS = (480, 240, 120, 60, 30, 15)
"""Beats a minute."""
_WORDS = {
    "chroma": "Pitch classes rise upwards from C; bright is strong.",
    "cqt": "Frequency rises upwards, 12 bands an octave; bright is loud.",
    "mfcc": "The coefficients of the cepstrum rise upwards from 0.",
    "tempogram": "The lag rises upwards from 0; bright is where onsets come again after it.",
}


def features_name(features: Features) -> str:
    """`Fbank`, `LogMel`, `cqt`."""
    return features.feature if isinstance(features, Librosa) else type(features).__name__


def bands_words(features: Features) -> str:
    """What a reader sees from the bottom to the top."""
    if isinstance(features, Librosa):
        return _WORDS[features.feature]
    return "Frequency rises upwards on the mel scale; bright is loud."


def bands_ticks(features: Features) -> tuple[Tick, ...]:
    """Labels from the top, each in the middle of its band; 0 is the top. Those too near to a higher one are left out.

    Of frequencies they are octaves from 125 Hz on, of a tempogram beats a minute.
    """
    if not isinstance(features, Librosa):
        return _spaced(features.n_bins, [(_loudest(features, hertz), _tone(hertz)) for hertz in _tones(features)])
    n = features.n_bins
    if features.feature == "cqt":
        low = features.low_hz or C1_HZ
        return _spaced(n, [(round(12 * math.log2(hertz / low)), _tone(hertz)) for hertz in _tones(features)])
    if features.feature == "chroma":
        return _spaced(n, [(round(i * n / 6), note) for i, note in enumerate(_NOTES)])
    if features.feature == "tempogram":
        a_minute = 60 * features.sample_rate / features.hop
        return _spaced(n, [(round(a_minute / tempo), f"{tempo} BPM") for tempo in _TEMPOS])
    return _spaced(n, [(i, str(i)) for i in range(n)])


def _spaced(n_bins: int, labels: list[tuple[int, str]]) -> tuple[Tick, ...]:
    """Ticks of (band, label), the highest band first, as many as have room."""
    ticks: list[Tick] = []
    for band, label in sorted(labels, reverse=True):
        at = 1 - (band + 0.5) / n_bins
        if 0 <= band < n_bins and (not ticks or at - ticks[-1].at >= _LEAST_GAP):
            ticks.append(Tick(at=at, label=label))
    return tuple(ticks)


def _tones(features: Features) -> list[int]:
    return list(takewhile(lambda tone: tone < features.sample_rate / 2, _TONES_HZ))


def _tone(hertz: int) -> str:
    return f"{hertz} Hz" if hertz < 1000 else f"{hertz // 1000} kHz"


def _loudest(features: Features, hertz: int) -> int:
    """The band that hears a tone most. The bands are asked, so this holds for any scale."""
    time = torch.arange(features.sample_rate // 4, dtype=torch.float64) / features.sample_rate
    return int(features(torch.sin(2 * math.pi * hertz * time).float()).mean(dim=0).argmax())
