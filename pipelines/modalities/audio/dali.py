"""Log-mel spectrograms of whole batches with NVIDIA DALI, on a CUDA device or on the CPU.

Audio is read, decoded and resampled as on the CPU path (decode/sound.py); only waveforms enter the DALI graph. Decibels
differ from the CPU path by less than 0.01, down to 80 dB below the maximum. The rest is not done by DALI because it
decodes FLAC only on the CPU, one bad sample fails its whole batch, and its resampler (DALI 2.4) has no anti-aliasing
filter for downsampling. DALI has no Kaldi filterbank, so torch computes `Fbank`, also on CUDA.
"""

import logging
from dataclasses import replace
from typing import Any

import nvidia.dali
import nvidia.dali.fn
import nvidia.dali.math
import nvidia.dali.plugin.pytorch
import torch
from torch import Tensor

from .batch import AudioBatch
from .rows import mono
from .spectrogram import FLOOR_DB, LogMel, Spectrogram, hann_window

log = logging.getLogger(__name__)

dali: Any = nvidia.dali
"""Typed as Any because DALI is only partly annotated."""


class DaliSpectrograms:
    """Device transform that computes spectrograms with a DALI graph, or with torch if the graph fails.

    Raises:
        ValueError: The features are not `LogMel`.
    """

    def __init__(self, spectrogram: Spectrogram, threads: int) -> None:
        if not isinstance(features := spectrogram.features, LogMel):
            raise ValueError(
                f"backend='dali' supports only log-mel spectrograms, got features={features}; use "
                "features=LogMel(...) with statistics=, or backend='cpu', which computes spectrograms with "
                "torch, also on a CUDA device"
            )
        self._features, self._spectrogram, self._threads = features, spectrogram, threads
        self._pipeline: Any = None
        self._stream: Any = None

    def __call__(self, batch: AudioBatch, device: torch.device) -> AudioBatch:
        """Add spectrograms to the batch, computed in a separate CUDA stream; the host waits only for this stream."""
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()
            self._stream = self._stream or torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            try:
                found = self._run(batch, device)
                spectrogram = self._spectrogram.normalised(found, batch.length, batch.strips)
            except RuntimeError as error:
                log.warning("DALI failed, so torch computes the spectrograms: %s", " ".join(str(error).split()))
                self._pipeline = None
                spectrogram = self._spectrogram(mono(batch.waveform), batch.length, batch.strips)
        if self._stream:
            self._stream.synchronize()
            spectrogram.record_stream(torch.cuda.current_stream(device))
        return replace(batch, spectrogram=spectrogram)

    def _run(self, batch: AudioBatch, device: torch.device) -> Tensor:
        """Return decibels, float32 (B, frames, bins), on the device."""
        rows, _, n = batch.waveform.shape
        if self._pipeline is None or self._pipeline.max_batch_size < rows:
            self._pipeline = build_mel_graph(self._features, rows, n, self._threads, device)
            self._pipeline.build()
        lengths = batch.length[:, None].to(torch.int32).cpu().numpy()
        waveform = batch.waveform if device.type == "cuda" else batch.waveform.numpy()
        (found,) = self._pipeline.run(waveform=waveform, length=lengths)
        decibels = torch.empty((rows, self._features.n_frames(n), self._features.n_bins), device=device)
        dali.plugin.pytorch.feed_ndarray(found.as_tensor(), decibels, cuda_stream=self._stream)
        return decibels


def build_mel_graph(features: LogMel, batch_size: int, n_samples: int, threads: int, device: torch.device) -> Any:
    """Define the DALI graph from waveforms to decibels, without building it.

    The inputs are `waveform`, float32 (B, C, n_samples), on the device, and `length`, int32 (B, 1), the number of valid
    samples. The output, on the device, is float32 (n_frames(n_samples), n_bins) per sample. The graph averages the
    channels, subtracts the mean over time, and pads with 0. For a CUDA device without a number it can be serialised but
    not built.
    """
    fn, types, mode = dali.fn, dali.types, "gpu" if device.type == "cuda" else "cpu"
    pipeline = dali.Pipeline(batch_size=batch_size, num_threads=threads, device_id=device.index, prefetch_queue_depth=1)
    with pipeline:
        waveform = fn.external_source(name="waveform", dtype=types.FLOAT, ndim=2, device=mode)
        length = fn.external_source(name="length", dtype=types.INT32, ndim=1)
        sound = fn.slice(fn.reductions.mean(waveform, axes=[0]), start=[0], shape=length, axes=[0])
        power = fn.spectrogram(
            sound - fn.reductions.mean(sound),
            nfft=features.n_fft,
            window_length=features.n_fft,
            window_step=features.hop,
            window_fn=hann_window(features).tolist(),  # DALI's own window is half a sample off the periodic one
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
    return pipeline
