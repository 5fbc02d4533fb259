"""Readers of log-mel spectrograms of random segments of 10.24 s, written as other libraries' documentation shows.

librosa: `librosa.load` of a file, a crop, `melspectrogram`, `power_to_db`, in a torch DataLoader; "seeking" loads only
the crop (`offset=` and `duration=`). DALI: `readers.file`, `decoders.audio` with downmix and sample rate, which decode
and resample whole files, a random slice, `spectrogram`, `mel_filter_bank`, `to_decibels`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import librosa
import numpy as np
import nvidia.dali
import nvidia.dali.fn
import torch
from torch import Tensor
from torch.utils.data import Dataset

SECONDS, RATE, FFT, WINDOW, HOP, BINS, FRAMES = 10.24, 16000, 512, 400, 160, 128, 1024
BATCH = 8

dali: Any = nvidia.dali


class LibrosaClips(Dataset[Tensor]):
    """`clips` clips, float32 (BINS, FRAMES) each, of files of `seconds`."""

    def __init__(self, paths: list[Path], seconds: int, clips: int, *, seek: bool) -> None:
        self.paths, self.seconds, self.clips, self.seek = paths, seconds, clips, seek
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, i: int) -> Tensor:
        start, path = self.rng.uniform(0, self.seconds - SECONDS), self.paths[i % len(self.paths)]
        if self.seek:
            wave, _ = librosa.load(path, sr=RATE, mono=True, offset=start, duration=SECONDS)
        else:
            wave, _ = librosa.load(path, sr=RATE, mono=True)
            wave = wave[int(start * RATE) :][: int(SECONDS * RATE)]
        power = librosa.feature.melspectrogram(
            y=wave, sr=RATE, n_fft=FFT, win_length=WINDOW, hop_length=HOP, n_mels=BINS
        )
        return torch.from_numpy(librosa.power_to_db(power)[:, :FRAMES])


class DaliClips:
    """Batches from a DALI pipeline on the CPU, with one thread and without prefetching."""

    def __init__(self, paths: list[Path]) -> None:
        fn, n = dali.fn, int(SECONDS * RATE)
        self.pipeline = dali.Pipeline(batch_size=BATCH, num_threads=1, device_id=None, prefetch_queue_depth=1, seed=0)
        with self.pipeline:
            encoded, _ = fn.readers.file(files=[str(path) for path in paths], random_shuffle=True)
            wave, _ = fn.decoders.audio(encoded, dtype=dali.types.FLOAT, downmix=True, sample_rate=RATE)
            room = fn.cast(wave.shape()[0] - n, dtype=dali.types.FLOAT)
            start = fn.cast(fn.random.uniform(range=[0.0, 1.0]) * room, dtype=dali.types.INT32)
            clip = fn.slice(wave, start=fn.stack(start), shape=[n], axes=[0])
            power = fn.spectrogram(clip, nfft=FFT, window_length=WINDOW, window_step=HOP)
            mel = fn.mel_filter_bank(power, sample_rate=RATE, nfilter=BINS)
            self.pipeline.set_outputs(fn.to_decibels(mel, reference=1.0, cutoff_db=-100.0))
        self.pipeline.build()

    def batch(self) -> Tensor:
        """The next batch, float32 (BATCH, BINS, FRAMES)."""
        (found,) = self.pipeline.run()
        return torch.from_numpy(np.array(found.as_array()))[:, :, :FRAMES]
