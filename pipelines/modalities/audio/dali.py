"""Log-mel spectrograms of whole batches by NVIDIA DALI, on a CUDA device or on the CPU.

Sounds are read, decoded and resampled as on the CPU path (sound.py), and only their waveforms enter the graph, whose
decibels are within 0.01 of that path's, down to 80 below the loudest. DALI decodes FLAC on the CPU, fails a batch as a
whole for one bad sound, and its resampler (2.4) filters nothing away before it lowers a rate, so that what lies above
the new half rate comes back as other tones. It has no Kaldi filterbank: `Fbank` stays with the torch code, on a CUDA
device too.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import nvidia.dali
import nvidia.dali.fn
import nvidia.dali.math
import nvidia.dali.plugin.pytorch
import torch
from torch import Tensor

from ...stream.source import Source
from .batch import AudioBatch
from .log_mel import FLOOR_DB, LogMel, hann_window
from .sample import AudioSampler, SoundDraft, SoundRequest, mono
from .spectrogram import Spectrogram

Sounds = Source[SoundRequest, SoundDraft, AudioBatch, AudioBatch]

log = logging.getLogger(__name__)

dali: Any = nvidia.dali
"""Untyped, since only a part of DALI has annotations."""


class DaliSpectrograms:
    """Makes the spectrograms of batches by a DALI graph; where that fails, which no sound makes it do, torch does."""

    def __init__(self, spectrogram: Spectrogram, threads: int) -> None:
        if not isinstance(features := spectrogram.features, LogMel):
            raise ValueError(
                f"backend='dali' makes log-mel spectrograms, and features={features} is another kind; use "
                "features=LogMel(...) with statistics=, or backend='cpu', which on a CUDA device works there too"
            )
        self._features, self._spectrogram, self._threads = features, spectrogram, threads
        self._pipeline: Any = None
        self._stream: Any = None

    def __call__(self, batch: AudioBatch, device: torch.device) -> AudioBatch:
        """The batch with its spectrograms, in a stream of their own: the host waits for them, and for nothing else."""
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()
            self._stream = self._stream or torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            try:
                found = self._run(batch, device)
                spectrogram = self._spectrogram.normalised(found, batch.length, batch.strips)
            except RuntimeError as error:
                log.warning("DALI failed, so torch makes the spectrograms: %s", " ".join(str(error).split()))
                self._pipeline = None
                spectrogram = self._spectrogram(mono(batch.waveform), batch.length, batch.strips)
        if self._stream:
            self._stream.synchronize()
            spectrogram.record_stream(torch.cuda.current_stream(device))
        return replace(batch, spectrogram=spectrogram)

    def _run(self, batch: AudioBatch, device: torch.device) -> Tensor:
        """Decibels float32 (B, frames, bins) on the device."""
        rows, _, n = batch.waveform.shape
        if self._pipeline is None or self._pipeline.max_batch_size < rows:
            self._pipeline = mel_pipeline(self._features, rows, n, self._threads, device)
        lengths = batch.length[:, None].to(torch.int32).cpu().numpy()
        waveform = batch.waveform if device.type == "cuda" else batch.waveform.numpy()
        (found,) = self._pipeline.run(waveform=waveform, length=lengths)
        decibels = torch.empty((rows, self._features.n_frames(n), self._features.n_bins), device=device)
        dali.plugin.pytorch.feed_ndarray(found.as_tensor(), decibels, cuda_stream=self._stream)
        return decibels


def on_dali(source: Sounds, sampler: AudioSampler, threads: int) -> Sounds:
    """The source of `sampler` whose spectrograms DALI makes; ValueError for features that are not `LogMel`."""
    finish = DaliSpectrograms(sampler.spectrogram, threads)
    return replace(source, sampler=replace(sampler, on_device=True), finish=finish)


def mel_pipeline(features: LogMel, batch_size: int, n_samples: int, threads: int, device: torch.device) -> Any:
    """The DALI graph from waveforms to decibels; run it with `waveform` float32 (B, C, n_samples) and `length` int32
    (B, 1), how much of each is sound.

    The waveforms lie on `device`, and so does the output: float32 (n_frames(n_samples), n_bins) for each, of the mean
    of all channels less its mean over time, 0 behind the sound's end.
    """
    fn, types = dali.fn, dali.types
    gpu = device.type == "cuda"
    device_id = (device.index if device.index is not None else torch.cuda.current_device()) if gpu else None
    pipeline = dali.Pipeline(batch_size=batch_size, num_threads=threads, device_id=device_id, prefetch_queue_depth=1)
    with pipeline:
        waveform = fn.external_source(name="waveform", dtype=types.FLOAT, ndim=2, device="gpu" if gpu else "cpu")
        length = fn.external_source(name="length", dtype=types.INT32, ndim=1)
        sound = fn.slice(fn.reductions.mean(waveform, axes=[0]), start=[0], shape=length, axes=[0])
        power = fn.spectrogram(
            sound - fn.reductions.mean(sound),
            nfft=features.n_fft,
            window_length=features.n_fft,
            window_step=features.hop,
            window_fn=hann_window(features).tolist(),  # DALI's own is half a sample off the periodic one
            reflect_padding=False,
            layout="tf",
        )
        mel = fn.mel_filter_bank(
            power, nfilter=features.n_bins, sample_rate=float(features.sample_rate), freq_low=features.low_hz
        )
        decibels = fn.to_decibels(mel, reference=1.0, cutoff_db=FLOOR_DB)
        if features.top_db is not None:
            decibels = dali.math.max(decibels, fn.reductions.max(decibels) - features.top_db)
        pipeline.set_outputs(fn.pad(decibels, axes=[0], shape=[features.n_frames(n_samples)]))
    pipeline.build()
    return pipeline
