"""The encoder of audio: the member `flac`, with the source's sample rate and channels."""

from dataclasses import dataclass, replace
from typing import ClassVar

import av
import numpy as np

from maskstream.preprocess.encode.encoder import Encoded, made_of
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.arrays import Int32s
from maskstream.shards.config import Config
from maskstream.shards.media.flac import join_flac_stream
from maskstream.shards.members.sound import sound_member

from .sound import Sound, read_sound

MAX_CHANNELS = 8
MIN_SECONDS = 0.025
"""The length of one filterbank window."""
MAX_RATE = 192_000
FRAME_SAMPLES = 4096
"""Samples per FLAC frame, the smallest unit that is decoded. Shorter frames cost more decoding time and seek points."""
LEVEL = 2
"""FLAC's compression level: its fixed predictors decode 1.6x faster than level 5 and take about 10 % more bytes."""
_LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")
SILENT_DB, BLOCK_S = -60.0, 0.02
"""A block of this many seconds is silent if its root mean square is below this level; 0 dB is full scale."""
_CHUNK = 1 << 20
"""Samples that are processed at a time."""
_LOSSLESS_FLOAT = ("pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be")


@dataclass(frozen=True, slots=True)
class AudioEncoder(Config):
    """Encodes audio as FLAC: integer PCM of up to 16 bits with 16 bits, longer integers and float PCM with 24, other
    codecs with 16.

    A float source beyond [-1, 1] is not clipped but scaled to fit; multiplying by the fact `gain` restores its level.
    Audio is rejected if it is empty, shorter than 25 ms, constant, not finite, damaged or truncated, or has more than 8
    channels or a rate over 192 kHz. Clipped sources are kept; `json` contains the fraction of samples at full scale.
    The `parts` of a source become more channels.
    """

    modality: ClassVar[str] = "audio"

    level: int = LEVEL

    @property
    def profile(self) -> str:
        """The codec: flac."""
        return "flac"

    def encode(self, source: Source) -> Encoded:
        """Encode an audio file, or its window in milliseconds or span.

        Args:
            source: Source to encode; its `made_by` creates a `Sound`.

        Raises:
            RejectError: The audio cannot become a sample.
        """
        sound = made_of(source, Sound)
        if sound is None:
            part = source.span or source.window
            sound = stack_channels([read_sound(path, part) for path in (source.path, *source.parts)])
        check_sound(sound)
        return encode_sound(sound, self.level)


def stack_channels(sounds: list[Sound]) -> Sound:
    """Combine the channels of several files. Raise RejectError if their length, rate or bits differ."""
    first = sounds[0]
    forms = {(len(s.samples), s.sample_rate, s.bits) for s in sounds}
    if len(forms) > 1:
        raise RejectError("decode", f"its files differ in samples, rate or bits: {sorted(forms)}")
    return replace(first, samples=np.concatenate([s.samples for s in sounds], axis=1)) if len(sounds) > 1 else first


def check_sound(sound: Sound) -> None:
    """Raise RejectError if audio cannot become a sample (see `AudioEncoder`)."""
    n, channels = sound.samples.shape
    if not np.isfinite(sound.samples).all():
        raise RejectError("check", f"{int((~np.isfinite(sound.samples)).sum())} of its samples are not finite numbers")
    if n < MIN_SECONDS * sound.sample_rate:
        raise RejectError(
            "check", f"has {n} samples, {n / sound.sample_rate:.4f} s; at least {MIN_SECONDS} s are needed"
        )
    if channels > MAX_CHANNELS or sound.sample_rate > MAX_RATE:
        raise RejectError(
            "check",
            f"has {channels} channels at {sound.sample_rate} Hz; at most {MAX_CHANNELS} channels and {MAX_RATE} Hz are "
            "supported",
        )
    if (sound.samples == sound.samples[0]).all():
        raise RejectError("check", "is silent: all its samples are equal")


def encode_sound(sound: Sound, level: int = LEVEL) -> Encoded:
    """Encode checked audio.

    Args:
        sound: Decoded audio that `check_sound` accepts.
        level: FLAC's compression level.

    Returns:
        The member, meta and sums (see `AudioEncoder`).
    """
    # imported here because importing torch is slow, and videos do not need it
    from .fbank_sums import compute_fbank_sums

    samples, bits, gain = _quantise_samples(sound)
    n, channels = samples.shape
    data = join_flac_stream(
        _split_frames(samples, bits, sound.sample_rate, level),
        sample_rate=sound.sample_rate,
        bits=bits,
        samples=samples,
    )
    scale = np.float32(gain / (1 << bits - 1))
    full = (1 << bits - 1) - 1
    meta = {
        "sample_rate": sound.sample_rate,
        "channels": channels,
        "n_samples": n,
        "duration_s": n / sound.sample_rate,
        "bits": bits,
        "gain": gain,
        "peak": float(np.abs(samples).max() * scale),
        "rms": _compute_rms(samples) * float(scale),
        "at_full_scale": float((np.abs(samples) >= full).mean()),
        "original": {"codec": sound.codec, "container": sound.container, "bits": sound.bits},
    }
    return Encoded(
        members={"flac": sound_member(data, gain=gain)},
        meta=meta,
        sums=compute_fbank_sums(samples, scale, sound.sample_rate),
        signals={
            "loudness_db": float(20 * np.log10(max(meta["rms"], 1e-10))),
            "clipped": meta["at_full_scale"],
            "silent": _measure_silence(samples, float(scale), sound.sample_rate),
        },
    )


def _measure_silence(samples: Int32s, scale: float, rate: int) -> float:
    """Return the fraction of blocks of BLOCK_S in which the root mean square of all channels is below SILENT_DB."""
    length = max(1, round(BLOCK_S * rate))
    blocks = samples[: max(len(samples) // length, 1) * length].astype(np.float32)
    blocks = blocks.reshape(-1, min(length, len(samples)) * samples.shape[1])
    power = np.einsum("ij,ij->i", blocks, blocks) / blocks.shape[1] * scale**2
    return float((power < 10 ** (SILENT_DB / 10)).mean())


def _quantise_samples(sound: Sound) -> tuple[Int32s, int, float]:
    """Return the stored samples, int32 (n, channels), their bits, and the gain."""
    if sound.bits:
        bits = 16 if sound.bits <= 16 else 24
        samples = sound.samples.astype(np.int32)
        shift = bits - sound.bits
        return (samples << shift if shift >= 0 else samples >> -shift), bits, 1.0
    bits = 24 if sound.codec in _LOSSLESS_FLOAT else 16
    peak = float(np.abs(sound.samples).max())
    gain = max(1.0, peak)
    full = (1 << bits - 1) - 1
    scaled = np.rint(sound.samples.astype(np.float64) / gain * (full + 1))
    return np.clip(scaled, -full - 1, full).astype(np.int32), bits, gain


def _split_frames(samples: Int32s, bits: int, rate: int, level: int) -> list[tuple[int, bytes]]:
    """Return the FLAC frames as (number of samples, bytes)."""
    channels = samples.shape[1]
    kind, packed = ("s16", samples.astype(np.int16)) if bits == 16 else ("s32", samples << 8)
    context = av.CodecContext.create("flac", "w")
    context.sample_rate, context.format, context.layout = rate, kind, _LAYOUTS[channels - 1]
    context.options = {"compression_level": str(level), "frame_size": str(FRAME_SAMPLES)}
    context.thread_count = 1
    context.open()
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(packed).reshape(1, -1), kind, _LAYOUTS[channels - 1])
    frame.sample_rate, frame.pts = rate, 0
    try:
        packets = [*context.encode(frame), *context.encode(None)]
    except av.FFmpegError as error:
        raise RejectError("encode", f"cannot be encoded ({error})") from error
    size = context.frame_size
    found = [bytes(packet) for packet in packets if packet.size]
    lengths = [min(size, len(samples) - first) for first in range(0, len(samples), size)]
    return list(zip(lengths, found, strict=True))


def _compute_rms(samples: Int32s) -> float:
    """Return the root mean square, computed in chunks to save memory."""
    squares = sum(
        float(np.square(samples[i : i + _CHUNK], dtype=np.float64).sum()) for i in range(0, len(samples), _CHUNK)
    )
    return float(np.sqrt(squares / samples.size))
