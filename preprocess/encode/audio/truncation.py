"""Detects truncated sounds, as far as the container allows.

WAV declares its number of bytes, MP3 its number of frames (in a Xing, Info or VBRI header, which most encoders write),
MP4 the position of each packet and FLAC its number of samples. Ogg marks its last page. AIFF, AU, CAF and Matroska
declare their duration to within 50 ms. MP3 and AAC streams without such a header, and fragmented MP4 without an index,
may end after any packet; there, truncation shows only if it is within the last packet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer

from .mp3_frames import mp3_frames

EXACT = frozenset({"flac"})
"""Containers that declare the exact number of samples."""
_CLOSE = frozenset({"w64", "aiff", "au", "caf"})
"""Containers that declare the duration to within some milliseconds."""
_MAX_PAGE = 27 + 255 + 255 * 255
_PAGE_HEAD = 27
_LAST_PAGE = 4


def missing_before_decoding(source: Path | bytes, container: str) -> str | None:
    """Check a file for truncation without decoding it; returns what is missing, in words, or None.

    container: FFmpeg's name. Raises OSError if the file cannot be read.
    """
    look = {"wav": _missing_wav, "mp3": _missing_mp3, "ogg": _missing_ogg}.get(container)
    if look is None:
        return None
    with _data(source) as data:
        return look(data)


def missing_after_decoding(
    container: InputContainer, packets: int, expected: int, corrupt: int, samples: int
) -> str | None:
    """Check a file for truncation after its first sound track was decoded to the end; returns as above.

    packets: how many were read, `corrupt` of them incomplete. expected: how many MP4's packet table listed on opening.
    samples: how many were decoded per channel.
    """
    name, stream = container.format.name, container.streams.audio[0]
    rate = stream.codec_context.sample_rate
    if "mov" in name and (packets < expected or corrupt):
        if expected > packets - corrupt:
            return f"it holds {packets - corrupt} of the {expected} packets in its packet table"
        return "its last packet is incomplete"
    declared = _declared_s(container, stream)
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


def _declared_s(container: InputContainer, stream: AudioStream) -> float | None:
    """The track's duration in seconds as the container declares it; None if it declares none for this track."""
    name = container.format.name
    if "matroska" in name:
        return container.duration / av.time_base if container.duration and len(container.streams) == 1 else None
    if not (name in EXACT | _CLOSE or "mov" in name) or not stream.duration or stream.time_base is None:
        return None
    return float(stream.duration * stream.time_base)


@contextmanager
def _data(source: Path | bytes) -> Iterator[bytes | mmap]:
    """The bytes of a file, mapped into memory."""
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        yield data


def _missing_wav(data: bytes | mmap) -> str | None:
    """FFmpeg ignores a truncated data chunk. The header of a live stream declares no length."""
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


def _missing_mp3(data: bytes | mmap) -> str | None:
    """Encoders count frames differently by one, so one missing frame is tolerated if no bytes are missing."""
    found = mp3_frames(data)
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


def _missing_ogg(data: bytes | mmap) -> str | None:
    at = data.rfind(b"OggS", max(0, len(data) - 2 * _MAX_PAGE))
    if at < 0 or len(head := data[at : at + _PAGE_HEAD]) < _PAGE_HEAD:
        return "it does not end with a whole page"
    lacing = data[at + _PAGE_HEAD : at + _PAGE_HEAD + head[26]]
    if at + _PAGE_HEAD + head[26] + sum(lacing) > len(data):
        return "its last page is incomplete"
    return None if head[5] & _LAST_PAGE else "it has no end-of-stream page"
