"""Whether a sound was cut off, as far as its container lets that be told.

WAV says how many bytes it holds, MP3 how many frames (in a Xing, Info or VBRI header, which most encoders write), MP4
where each packet lies, Ogg marks its last page, FLAC says how many samples there are, AIFF, AU, CAF and Matroska say to
50 ms how long they last. MP3 and AAC streams without such a header, and fragmented MP4 without an index, end wherever a
packet ends: there only one that was cut within its last packet can be told.
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
"""Containers that say exactly how many samples there are."""
_CLOSE = frozenset({"w64", "aiff", "au", "caf"})
"""Those that say it to within some milliseconds."""
_MAX_PAGE = 27 + 255 + 255 * 255
_PAGE_HEAD = 27
_LAST_PAGE = 4


def lacking_before(source: Path | bytes, container: str) -> str | None:
    """What a file lacks, in words, by what stands in it without decoding; None where nothing is known to be lacking.

    container: FFmpeg's name. OSError where the file cannot be read.
    """
    look = {"wav": _lacking_wav, "mp3": _lacking_mp3, "ogg": _lacking_ogg}.get(container)
    if look is None:
        return None
    with _data(source) as data:
        return look(data)


def lacking_after(container: InputContainer, packets: int, expected: int, corrupt: int, samples: int) -> str | None:
    """The same after decoding the first sound track to its end.

    packets: that were read of it, `corrupt` of them incomplete. expected: packets in the table of MP4 when it was
    opened. samples: that were decoded, of one channel.
    """
    name, stream = container.format.name, container.streams.audio[0]
    rate = stream.codec_context.sample_rate
    if "mov" in name and (packets < expected or corrupt):
        at = f"{packets - corrupt} of {expected} packets are there" if expected > packets - corrupt else "its last one"
        return f"its table of packets points beyond its end: {at}"
    promised = _promised_s(container, stream)
    if promised is None:
        return None
    if name in EXACT:
        slack = 0.5 / rate
    elif name in _CLOSE or "matroska" in name:
        slack = 0.05
    else:
        slack = 4 * max(stream.codec_context.frame_size, 1024) / rate
    if samples / rate < promised - slack:
        return f"{samples / rate:.2f} s of {promised:.2f} s are there"
    return None


def _promised_s(container: InputContainer, stream: AudioStream) -> float | None:
    """How long the container says that the track lasts, in seconds; None where it does not say it of this one."""
    name = container.format.name
    if "matroska" in name:
        return container.duration / av.time_base if container.duration and len(container.streams) == 1 else None
    if not (name in EXACT | _CLOSE or "mov" in name) or not stream.duration or stream.time_base is None:
        return None
    return float(stream.duration * stream.time_base)


@contextmanager
def _data(source: Path | bytes) -> Iterator[bytes | mmap]:
    """The bytes of a file, without reading them all."""
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        yield data


def _lacking_wav(data: bytes | mmap) -> str | None:
    """FFmpeg does not mind a short data chunk. The headers of streams promise nothing."""
    if data[:4] != b"RIFF":
        return None
    at = 12
    while len(head := data[at : at + 8]) == 8:
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"data":
            lacking = 0 if length in (0, 0xFFFFFFFF) else at + 8 + length - len(data)
            return f"its header promises {lacking} bytes more" if lacking > 0 else None
        at += 8 + length + length % 2
    return None


def _lacking_mp3(data: bytes | mmap) -> str | None:
    """Encoders differ by one frame in what they count, so one may lack where the bytes are all there."""
    found = mp3_frames(data)
    if found is None:
        return None
    missing = 0 if found.n_promised is None else found.n_promised - found.n
    short = 0 if found.bytes_promised is None else found.bytes_promised - found.size_bytes
    if missing > 1 or (missing == 1 and (short > 0 or found.lacking_bytes)):
        return f"{found.n} of the {found.n_promised} frames of its header are there"
    if found.n_promised is None and short > 0:
        return f"its header promises {short} bytes more"
    if found.n_promised is None and found.lacking_bytes:
        return f"its last frame lacks {found.lacking_bytes} bytes"
    return None


def _lacking_ogg(data: bytes | mmap) -> str | None:
    at = data.rfind(b"OggS", max(0, len(data) - 2 * _MAX_PAGE))
    if at < 0 or len(head := data[at : at + _PAGE_HEAD]) < _PAGE_HEAD:
        return "it does not end with a whole page"
    lacing = data[at + _PAGE_HEAD : at + _PAGE_HEAD + head[26]]
    if at + _PAGE_HEAD + head[26] + sum(lacing) > len(data):
        return "its last page is incomplete"
    return None if head[5] & _LAST_PAGE else "it has no end-of-stream page"
