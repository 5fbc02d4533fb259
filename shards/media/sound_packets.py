"""Decode the packets of an audio file without its container, to index, read and verify audio in foreign tars."""

from collections.abc import Iterator, Sequence

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame

from maskstream.shards.arrays import Float32s

from .flac import has_more_frames
from .local_media import MediaError, open_media
from .sound_table import SoundForm, SoundTableError

_FLAC_FRAMES = 8
"""How often FLAC's frame marker may occur in a packet; it has one frame, and other bytes match by chance."""
_FULL_SCALE = {"u8": 1 << 7, "s16": 1 << 15, "s32": 1 << 31, "s64": 1 << 63}


def open_decoder(form: SoundForm) -> AudioCodecContext:
    """Return a decoder with one thread. Raises SoundTableError if this FFmpeg does not have the codec."""
    try:
        decoder = av.CodecContext.create(form.codec, "r")
        if not isinstance(decoder, AudioCodecContext):
            raise SoundTableError(f"{form.codec} is not an audio codec")
        decoder.extradata, decoder.thread_count = form.setup or None, 1
        decoder.sample_rate, decoder.layout = form.sample_rate, form.layout
        if form.codec == "flac":
            decoder.options = {"err_detect": "crccheck+explode"}  # a damaged frame decodes to nothing
    except (av.FFmpegError, ValueError) as error:
        raise SoundTableError(f"FFmpeg {av.ffmpeg_version_info} cannot decode {form.codec} ({error})") from error
    return decoder


def decoded(form: SoundForm, packets: Sequence[bytes]) -> Iterator[Float32s]:
    """Return the samples of each packet from a new decoder, float32 (n, channels), full scale 1.

    A packet may yield no samples, or fail to decode: the first packets of a run may refer to missing ones. Raises
    SoundTableError if the number of channels changes.
    """
    decoder = open_decoder(form)
    channels: int | None = None
    for packet in packets:
        if form.codec == "flac" and has_more_frames(packet, _FLAC_FRAMES):
            raise SoundTableError("has a packet with many FLAC frames, but only one was indexed")
        try:
            frames = decoder.decode(av.Packet(packet))
        except (av.FFmpegError, ValueError):
            frames = []
        parts = [to_floats(frame) for frame in frames]
        if any(part.shape[1] != (channels := channels or part.shape[1]) for part in parts):
            raise SoundTableError(f"has frames whose number of channels is not {channels}")
        yield (
            np.concatenate(parts) if len(parts) > 1 else parts[0] if parts else np.empty((0, channels or 1), np.float32)
        )


def decode_whole(member: bytes, container: str) -> Iterator[Float32s]:
    """Return the frames of a decode of the whole member, float32 (n, channels).

    container: FFmpeg's name of the format. Raises SoundTableError if decoding fails.
    """
    try:
        with open_media(member, container) as opened:
            for frame in opened.decode(audio=0):
                yield to_floats(frame)
    except (av.FFmpegError, MediaError, ValueError, IndexError) as error:
        raise SoundTableError(f"cannot be decoded ({error})") from error


def to_floats(frame: AudioFrame) -> Float32s:
    """Return a frame's samples, float32 (n, channels): integers are divided by their full scale, floats are
    unchanged.
    """
    array = frame.to_ndarray()
    array = array.T if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels)
    kind = frame.format.name.removesuffix("p")
    if kind not in _FULL_SCALE:
        return array.astype(np.float32, copy=False)
    found = array.astype(np.float32) if kind != "u8" else array.astype(np.float32) - np.float32(128)
    found *= np.float32(1 / _FULL_SCALE[kind])
    return found
