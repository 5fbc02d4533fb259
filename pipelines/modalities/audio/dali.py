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

from ...stream.place import START, Place
from .batch import AudioBatch
from .log_mel import FLOOR_DB, LogMel, hann_window
from .room import Room
from .sample import AudioSample, AudioSampler, mono

log = logging.getLogger(__name__)

dali: Any = nvidia.dali
"""Untyped, since only a part of DALI has annotations."""


class DaliSoundSampler:
    """The `Sampler` of a loader whose threads make waveforms and masks, and whose `collate` makes the spectrograms.

    Error: ValueError for features that are not `LogMel`.
    """

    def __init__(self, sampler: AudioSampler, device: torch.device, threads: int) -> None:
        if not isinstance(features := sampler.spectrogram.features, LogMel):
            raise ValueError(
                f"backend='dali' makes log-mel spectrograms, and features={features} is another kind; use "
                "features=LogMel(...) with statistics=, or backend='cpu', which on a CUDA device works there too"
            )
        self.seed, self.needs_progress = sampler.seed, sampler.needs_progress
        self._features, self._sampler = features, replace(sampler, on_device=True)
        self._device, self._threads = device, threads
        self._pipeline: Any = None
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def prepare(self, samples: list[tuple[int, int, Place]]) -> list[Room]:
        """As `AudioSampler.prepare`."""
        return self._sampler.prepare(samples)

    def make(self, index: int, epoch: int, place: Place = START, room: Room | None = None) -> AudioSample:
        """As `AudioSampler.make`, without a spectrogram."""
        return self._sampler.make(index, epoch, place, room)

    def collate(self, samples: list[AudioSample]) -> AudioBatch:
        """Samples to a batch, its waveform and spectrogram on the device, the rest on the CPU.

        Where DALI fails, which no sound makes it do, torch makes the batch's spectrograms.
        """
        batch = self._sampler.collate(samples)
        with torch.cuda.stream(self._stream):
            length, strips = batch.length.to(self._device), batch.strips
            strips = None if strips is None else strips.to(self._device)
            try:
                found, waveform = self._run(batch)
                spectrogram = self._sampler.spectrogram.normalised(found, length, strips)
            except RuntimeError as error:
                log.warning("DALI failed, so torch makes the spectrograms: %s", " ".join(str(error).split()))
                self._pipeline, waveform = None, batch.waveform.to(self._device)
                spectrogram = self._sampler.spectrogram(mono(waveform), length, strips)
        if self._stream:  # of its own: the host waits for the batch, not for the training step before it
            self._stream.synchronize()
            for tensor in (waveform, spectrogram):
                tensor.record_stream(torch.cuda.current_stream(self._device))
        return replace(batch, waveform=waveform, spectrogram=spectrogram)

    def _run(self, batch: AudioBatch) -> tuple[Tensor, Tensor]:
        """Decibels float32 (B, frames, bins) and the waveforms, both on the device."""
        rows, _, n = batch.waveform.shape
        if self._pipeline is None or self._pipeline.max_batch_size < rows:
            self._pipeline = mel_pipeline(self._features, rows, n, self._threads, self._device)
        lengths = batch.length[:, None].to(torch.int32)
        found, waveform = self._pipeline.run(waveform=batch.waveform.numpy(), length=lengths.numpy())
        decibels = self._to_torch(found, (rows, self._features.n_frames(n), self._features.n_bins))
        return decibels, self._to_torch(waveform, batch.waveform.shape) if self._stream else batch.waveform

    def _to_torch(self, source: Any, shape: tuple[int, ...]) -> Tensor:
        """A copy on the device, queued in this sampler's stream."""
        tensor = torch.empty(shape, device=self._device)
        dali.plugin.pytorch.feed_ndarray(source.as_tensor(), tensor, cuda_stream=self._stream)
        return tensor


def mel_pipeline(features: LogMel, batch_size: int, n_samples: int, threads: int, device: torch.device) -> Any:
    """The DALI graph from waveforms to decibels; run it with `waveform` float32 (B, C, n_samples) and `length` int32
    (B, 1), how much of each is sound.

    The outputs are float32 (n_frames(n_samples), n_bins) for each, of the sound's mean of all channels less its mean
    over time, 0 behind its end, and the waveforms, both on `device`.
    """
    fn, types = dali.fn, dali.types
    gpu = device.type == "cuda"
    device_id = (device.index if device.index is not None else torch.cuda.current_device()) if gpu else None
    pipeline = dali.Pipeline(batch_size=batch_size, num_threads=threads, device_id=device_id, prefetch_queue_depth=1)
    with pipeline:
        waveform = fn.external_source(name="waveform", dtype=types.FLOAT, ndim=2)
        length = fn.external_source(name="length", dtype=types.INT32, ndim=1)
        waveform = waveform.gpu() if gpu else waveform
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
        pipeline.set_outputs(fn.pad(decibels, axes=[0], shape=[features.n_frames(n_samples)]), waveform)
    pipeline.build()
    return pipeline
