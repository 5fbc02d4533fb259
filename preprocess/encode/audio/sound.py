"""Read the audio of a raw file as decoded; nothing is scaled, mixed or resampled.

Truncated audio is rejected as far as the container allows. WAV declares its number of bytes, MP3 its number of frames
(in a Xing, Info or VBRI header, which most encoders write), MP4 the position of each packet and FLAC its number of
samples. Ogg marks its last page. AIFF, AU, CAF and Matroska declare their duration to within 50 ms. MP3 and AAC streams
without such a header, and fragmented MP4 without an index, may end after any packet; there, truncation is only detected
within the last packet. MP3 frames are counted and compared with the header's count.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from math import floor
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from maskstream.preprocess.encode.limits import check_sound, lasts
from maskstream.preprocess.source import RejectError, Span, explain
from maskstream.shards.arrays import Float32s, Int32s
from maskstream.shards.media.local_media import MediaError, open_media

_KBPS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates in kbit/s by (version, layer), for the bit rate indexes 1 to 14 (ISO 11172-3, ISO 13818-3)."""
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Sample rates in Hz by the two version bits: MPEG 1, 2 and 2.5."""
_HEAD_BYTES = 4


@dataclass(frozen=True, slots=True)
class _Frame:
    """The contents of a frame header; `kind` (version, layer, rate) is the same for all frames of a stream."""

    kind: tuple[int, int, int]
    size_bytes: int
    mono: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Mp3Frames:
    """The frame counts of a file.

    Attributes:
        n: Complete frames, without the frame of the Xing, Info or VBRI header.
        missing_bytes: Bytes that the last frame lacks.
        size_bytes: Bytes from the header's frame to the end of the file.
        n_declared: Frames that the header declares; None without a declaration.
        bytes_declared: Bytes that the header declares; None without a declaration.
    """

    n: int
    missing_bytes: int
    size_bytes: int
    n_declared: int | None
    bytes_declared: int | None


def count_mp3_frames(data: bytes | mmap) -> Mp3Frames | None:
    """Count the frames; return None if there are none, or their headers omit the bit rate (free format)."""
    begin = _find_first_frame(data, find_id3_end(data))
    first = None if begin is None else _parse_frame(data[begin : begin + _HEAD_BYTES])
    if begin is None or first is None:
        return None
    n_declared, bytes_declared, is_header = _read_declared(data[begin : begin + first.size_bytes], first)
    at, n, missing = begin, 0, 0
    while at + _HEAD_BYTES <= len(data):
        frame = _parse_frame(data[at : at + _HEAD_BYTES])
        if frame is None or frame.kind != first.kind:
            again = _find_first_frame(data, at, first.kind)
            if again is None:
                break
            at = again
            continue
        missing = max(0, at + frame.size_bytes - len(data))
        if missing:
            break
        n, at = n + 1, at + frame.size_bytes
    return Mp3Frames(
        n=n - is_header,
        missing_bytes=missing,
        size_bytes=len(data) - begin,
        n_declared=n_declared,
        bytes_declared=bytes_declared,
    )


def find_id3_end(data: bytes | mmap) -> int:
    """Return the offset of the first byte after the ID3v2 tags; 0 without tags."""
    at = 0
    while data[at : at + 3] == b"ID3" and len(data) >= at + 10:
        a, b, c, d = data[at + 6 : at + 10]
        footer = 10 if data[at + 5] & 0x10 else 0
        at += 10 + footer + (a << 21 | b << 14 | c << 7 | d)
    return at


def _find_first_frame(data: bytes | mmap, at: int, kind: tuple[int, int, int] | None = None) -> int | None:
    """Return the offset, `at` or later, of the first frame that is followed by another frame of its kind; None if there
    is none.
    """
    while (at := data.find(b"\xff", at)) >= 0:
        frame = _parse_frame(data[at : at + _HEAD_BYTES])
        if frame is not None and kind in (None, frame.kind):
            after = _parse_frame(data[at + frame.size_bytes : at + frame.size_bytes + _HEAD_BYTES])
            if after is not None and after.kind == frame.kind:
                return at
        at += 1
    return None


def _parse_frame(head: bytes) -> _Frame | None:
    """Parse the frame header `head`; return None if it is not a frame header, or has the free format."""
    if len(head) < _HEAD_BYTES or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    index, rate_index, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or index in (0, 15) or rate_index == 3:
        return None
    first_version = 1 if version == 3 else 2
    bits, rate = 1000 * _KBPS[first_version, layer][index - 1], _RATES[version][rate_index]
    if layer == 1:
        size = (12 * bits // rate + padding) * 4
    else:
        size = (72 if layer == 3 and first_version == 2 else 144) * bits // rate + padding
    return _Frame(kind=(version, layer, rate), size_bytes=size, mono=head[3] >> 6 == 3)


def _read_declared(body: bytes, frame: _Frame) -> tuple[int | None, int | None, bool]:
    """Return the declared frames, the declared bytes, and whether the first frame is such a header instead of audio."""
    side_info = (17, 32) if frame.kind[0] == 3 else (9, 17)
    at = _HEAD_BYTES + side_info[not frame.mono]
    if body[at : at + 4] in (b"Xing", b"Info"):
        flags = int.from_bytes(body[at + 4 : at + 8], "big")
        fields = [int.from_bytes(body[p : p + 4], "big") for p in (at + 8, at + 12)]
        n = fields[0] if flags & 1 else 0
        size = fields[bool(flags & 1)] if flags & 2 else 0
        return n or None, size or None, True
    if body[36:40] == b"VBRI":
        size, n = (int.from_bytes(body[p : p + 4], "big") for p in (46, 50))
        return n or None, size or None, True
    return None, None, False


_PRIMING = 3
"""Largest number of priming packets (decoded but not played) at a track's start. If more packets are hidden, an edit
list hides them, and the declared duration may not account for it.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sound:
    """Decoded audio.

    Attributes:
        samples: int32 or float32 (n, channels).
        bits: 8 to 32 for integers; 0 for floats, whose full scale is 1.
        sample_rate: Sample rate in hertz.
        codec: FFmpeg's name of the codec.
        container: FFmpeg's name of the container.
    """

    samples: Int32s | Float32s
    bits: int
    sample_rate: int
    codec: str
    container: str


def read_sound(
    source: Path | bytes, part: tuple[int, int] | Span | None = None, *, container: str | None = None
) -> Sound:
    """Decode the first audio track of a file, or a part of it. For a span of PCM or FLAC, decoding begins there.

    Args:
        source: Path or bytes of the file.
        part: Milliseconds [first, stop) or a span; None for the whole track.
        container: FFmpeg's name of the format; None probes it.

    Raises:
        RejectError: There is no audio track, or it is damaged, truncated, too long (`Limits`; it is held in memory as a
            whole), or changes its format.
    """
    try:
        with open_media(source, container) as opened:
            if not opened.streams.audio:
                raise RejectError("open", "has no audio track")
            lasts((opened.duration or 0) / av.time_base, opened.size)
            is_whole = part is None or opened.format.name == "wav"
            if is_whole and (missing := check_before_decoding(source, opened.format.name)):
                raise RejectError("decode", f"is truncated: {missing}")
            return _decoded(opened, part)
    except MediaError as error:
        raise RejectError("open", str(error)) from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise RejectError("open", f"cannot be opened or decoded ({explain(error)})") from error


@dataclass(kw_only=True, slots=True)
class _Track:
    """The part of a track read so far: its format, its frames, and the numbers of samples and of packets (all, corrupt,
    hidden).

    part: requested part. n: number of the next sample. begun: number of the first sample in `parts`, which skips frames
    before the requested part.
    """

    part: tuple[int, int] | Span | None = None
    form: tuple[str, int, int] | None = None
    parts: list[Int32s | Float32s] = field(default_factory=list)
    n: int = 0
    begun: int = 0
    packets: int = 0
    corrupt: int = 0
    hidden: int = 0

    def add(self, frame: AudioFrame) -> None:
        """Append a frame. Raise RejectError if its format differs from earlier frames."""
        self.form = self.form or sample_format(frame)
        if sample_format(frame) != self.form:
            raise RejectError("decode", f"changes its format from {self.form} to {sample_format(frame)}")
        self.n += frame.samples
        if self.n <= self.bounds[0]:
            self.begun = self.n
        else:
            self.parts.append(frame_samples(frame))
        check_sound(self.n - self.begun, frame.sample_rate, frame.layout.nb_channels)

    @property
    def bounds(self) -> tuple[int, int | None]:
        """Numbers of the first requested sample and of the one after the last; None for the end. `form` must be
        known.
        """
        rate = 0 if self.form is None else self.form[1]
        if isinstance(self.part, Span):
            stop_s = self.part.stop_s
            return round(self.part.start_s * rate), None if stop_s is None else round(stop_s * rate)
        return (0, None) if self.part is None else (self.part[0] * rate // 1000, self.part[1] * rate // 1000)


def _decoded(container: InputContainer, part: tuple[int, int] | Span | None) -> Sound:
    stream = container.streams.audio[0]
    expected = len(stream.index_entries) if "mov" in container.format.name else 0
    track = _Track(part=part)
    ended = _read(container, track)
    missing = check_after_decoding(container, track.packets, expected, track.corrupt, track.n) if ended else None
    if track.form is None or track.n == 0:
        raise RejectError("decode", f"is truncated: {missing}" if track.corrupt else "is empty")
    if missing and track.hidden <= _PRIMING:
        raise RejectError("decode", f"is truncated: {missing}")
    kind, rate, _ = track.form
    if ended and isinstance(part, Span):
        part.check_end(track.n / rate)
    if not track.parts:
        raise RejectError("check", f"has {track.n / rate:.2f} s of audio, which ends before the part {part}")
    first, stop = track.bounds
    samples: npt.NDArray[Any] = np.concatenate(track.parts)
    samples = samples[max(first - track.begun, 0) : None if stop is None else max(stop - track.begun, 0)]
    bits = 0
    if samples.dtype == np.int32:
        samples, bits = integers(kind, samples)
    name = container.format.name
    return Sound(samples=samples, bits=bits, sample_rate=rate, codec=stream.codec_context.name, container=name)


def _read_packets(container: InputContainer, stream: AudioStream, part: object) -> tuple[Iterator[Packet[Any]], int]:
    """Return the packets of a track, and the number of their first sample: the first one of the part if samples do not
    depend on earlier ones, and the container can seek to it.
    """
    codec, unit = stream.codec_context, stream.time_base
    if isinstance(part, Span) and part.start_s and unit and codec.name.startswith(("pcm_", "flac")):
        begin = floor(part.start_s / unit)
        try:
            container.seek(begin, stream=stream, backward=True)
            packets = container.demux(stream)
            head = next(packets, None)
            if head is not None and head.pts is not None and head.pts <= begin:
                return chain([head], packets), round(head.pts * unit * codec.sample_rate)
        except av.FFmpegError:
            pass
        container.seek(0, stream=stream)
    return container.demux(stream), 0


def _read(container: InputContainer, track: _Track) -> bool:
    """Decode the requested part of the first track; return whether its end was reached. An incomplete packet is an
    end.
    """
    stream = container.streams.audio[0]
    try:
        packets, track.n = _read_packets(container, stream, track.part)
        track.begun = track.n
        for packet in packets:
            track.packets += bool(packet.size)
            track.hidden += packet.is_discard
            if packet.is_corrupt and "mov" in container.format.name:
                track.corrupt += 1
                return True
            for frame in stream.decode(packet):
                track.add(frame)
                stop = track.bounds[1]
                if stop is not None and track.n >= stop:
                    return False
    except av.FFmpegError as error:
        raise RejectError("decode", f"is damaged after {track.n} samples ({explain(error)})") from error
    return True


def sample_format(frame: AudioFrame) -> tuple[str, int, int]:
    """Return the sample format (without FFmpeg's suffix of planar formats), rate and channels."""
    return frame.format.name.removesuffix("p"), frame.sample_rate, frame.layout.nb_channels


def frame_samples(frame: AudioFrame) -> Int32s | Float32s:
    """Return the samples of a frame as int32 or float32 (n, channels)."""
    array = frame.to_ndarray()
    channels = frame.layout.nb_channels
    array = array.T if frame.format.is_planar else array.reshape(-1, channels)
    kind = frame.format.name.removesuffix("p")
    if kind == "u8":
        return array.astype(np.int32) - 128
    if kind in ("flt", "dbl"):
        return array.astype(np.float32)
    if kind == "s64":
        return (array.astype(np.int64) >> 32).astype(np.int32)
    return array.astype(np.int32)


def integers(kind: str, samples: Int32s) -> tuple[Int32s, int]:
    """Return the samples and their bits. FFmpeg stores 24 bits in the upper bits of 32; they are shifted down."""
    if kind in ("u8", "s16"):
        return samples, 8 if kind == "u8" else 16
    return (samples, 32) if (samples & 0xFF).any() else (samples >> 8, 24)


EXACT = frozenset({"flac"})
"""Containers that declare the exact number of samples."""
_CLOSE = frozenset({"w64", "aiff", "au", "caf"})
"""Containers that declare the duration to within some milliseconds."""
_MAX_PAGE = 27 + 255 + 255 * 255
_PAGE_HEAD = 27
_LAST_PAGE = 4


def check_before_decoding(source: Path | bytes, container: str) -> str | None:
    """Check a file for truncation without decoding it.

    Args:
        source: Path or bytes of the file.
        container: FFmpeg's name of the format.

    Returns:
        A description of the missing part, or None.

    Raises:
        OSError: The file cannot be read.
    """
    look = {"wav": _check_wav, "mp3": _check_mp3, "ogg": _check_ogg}.get(container)
    if look is None:
        return None
    with _data(source) as data:
        return look(data)


def check_after_decoding(
    container: InputContainer, packets: int, expected: int, corrupt: int, samples: int
) -> str | None:
    """Check a file for truncation after its first audio track was decoded to the end.

    Args:
        container: Open container.
        packets: Number of packets read.
        expected: Number of packets that MP4's packet table listed on opening.
        corrupt: Number of incomplete packets.
        samples: Number of decoded samples per channel.

    Returns:
        A description of the missing part, or None.
    """
    name, stream = container.format.name, container.streams.audio[0]
    rate = stream.codec_context.sample_rate
    if "mov" in name and (packets < expected or corrupt):
        if expected > packets - corrupt:
            return f"it holds {packets - corrupt} of the {expected} packets in its packet table"
        return "its last packet is incomplete"
    declared = _read_declared_s(container, stream)
    if declared is None:
        return None
    if name in EXACT:
        slack = 0.5 / rate
    elif name in _CLOSE or "matroska" in name:
        slack = 0.05
    else:
        slack = 4 * max(stream.codec_context.frame_size, 1024) / rate
    if samples / rate < declared - slack:
        return f"it holds {samples / rate:.2f} s of the {declared:.2f} s that its header declares"
    return None


def _read_declared_s(container: InputContainer, stream: AudioStream) -> float | None:
    """Return the track's duration in seconds as the container declares it; None if it declares none for this track."""
    name = container.format.name
    if "matroska" in name:
        return container.duration / av.time_base if container.duration and len(container.streams) == 1 else None
    if not (name in EXACT | _CLOSE or "mov" in name) or not stream.duration or stream.time_base is None:
        return None
    return float(stream.duration * stream.time_base)


@contextmanager
def _data(source: Path | bytes) -> Iterator[bytes | mmap]:
    """Map the bytes of a file into memory."""
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        yield data


def _check_wav(data: bytes | mmap) -> str | None:
    """Check a WAV file, because FFmpeg ignores a truncated data chunk. The header of a live stream declares no
    length.
    """
    if data[:4] != b"RIFF":
        return None
    at = 12
    while len(head := data[at : at + 8]) == 8:
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"data":
            missing = 0 if length in (0, 0xFFFFFFFF) else at + 8 + length - len(data)
            return f"its header declares {missing} more bytes" if missing > 0 else None
        at += 8 + length + length % 2
    return None


def _check_mp3(data: bytes | mmap) -> str | None:
    """Check an MP3 file. Encoders disagree by one about the number of frames, so one missing frame is tolerated if no
    bytes are missing.
    """
    found = count_mp3_frames(data)
    if found is None:
        return None
    missing = 0 if found.n_declared is None else found.n_declared - found.n
    short = 0 if found.bytes_declared is None else found.bytes_declared - found.size_bytes
    if missing > 1 or (missing == 1 and (short > 0 or found.missing_bytes)):
        return f"it holds {found.n} of the {found.n_declared} frames that its header declares"
    if found.n_declared is None and short > 0:
        return f"its header declares {short} more bytes"
    if found.n_declared is None and found.missing_bytes:
        return f"its last frame lacks {found.missing_bytes} bytes"
    return None


def _check_ogg(data: bytes | mmap) -> str | None:
    at = data.rfind(b"OggS", max(0, len(data) - 2 * _MAX_PAGE))
    if at < 0 or len(head := data[at : at + _PAGE_HEAD]) < _PAGE_HEAD:
        return "it does not end with a whole page"
    lacing = data[at + _PAGE_HEAD : at + _PAGE_HEAD + head[26]]
    if at + _PAGE_HEAD + head[26] + sum(lacing) > len(data):
        return "its last page is incomplete"
    return None if head[5] & _LAST_PAGE else "it has no end-of-stream page"
