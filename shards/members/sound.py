"""The kind `sound`: a FLAC stream, or an indexed sound of a foreign tar."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from maskstream.shards.media.flac import FlacError, FlacHeader, flac_header, md5_bytes

from .foreign_sound import indexed_sound_decode_problems, indexed_sound_problems
from .member import ENDING, TABLE_FACTS, Kind, Member


def sound_member(data: bytes, *, gain: float = 1.0, start_s: float | None = None) -> Member:
    """A FLAC stream as a member; `gain` and `start_s` as in SOUND. Raises FlacError unless it has a seek point per
    frame.
    """
    facts, lists = flac_header(data).columns(len(data))
    facts["gain"] = gain
    return Member(
        kind=SOUND.name, data=data, facts=facts if start_s is None else {**facts, "start_s": start_s}, lists=lists
    )


def sound_problems(member: Member) -> Iterator[str]:
    """Compare the header of a FLAC stream, or the table of a foreign sound, with the facts."""
    if "table_size" in member.facts:
        yield from indexed_sound_problems(member)
        return
    try:
        header = flac_header(member.data)
    except FlacError as error:
        yield str(error)
        return
    points = header.points
    if (np.diff(points, axis=0) <= 0).any() or points[-1, 0] >= header.n_samples or points[-1, 1] >= len(member.data):
        yield "the points of its seek table do not ascend within the stream"
        return
    try:
        facts, lists = header.columns(len(member.data))
    except FlacError as error:
        yield str(error)
        return
    for name, found in facts.items():
        if found != member.facts[name]:
            yield f"its header says {name} {found}, not {member.facts[name]}"
    if not np.array_equal(lists["frame_size"], member.lists["frame_size"]):
        yield "the sizes of its frames differ from the manifest"


def sound_decode_problems(member: Member) -> Iterator[str]:
    """Compare the decoded samples with the MD5 of a FLAC stream, or with the table of a foreign sound."""
    if "table_size" in member.facts:
        yield from indexed_sound_decode_problems(member)
        return
    try:
        header = flac_header(member.data)
    except FlacError:
        return  # sound_problems reports it
    yield from _decode_problems(header, member.data)


def _decode_problems(header: FlacHeader, body: bytes) -> Iterator[str]:
    import av

    from maskstream.shards.media.local_media import MediaError, open_media

    digest, n = hashlib.md5(usedforsecurity=False), 0
    try:
        with open_media(body, "flac") as container:
            for frame in container.decode(audio=0):
                samples = frame.to_ndarray().reshape(-1, header.channels).astype(np.int32)
                samples >>= 8 if header.bits == 24 else 0
                digest.update(md5_bytes(samples, header.bits))
                if (n := n + len(samples)) > header.n_samples:
                    break
    except (av.FFmpegError, MediaError, ValueError) as error:
        yield f"cannot be decoded ({error})"
        return
    if n != header.n_samples:
        yield f"has {n} samples{' or more' * (n > header.n_samples)}, not {header.n_samples}"
    elif digest.digest() != header.md5:
        yield "its samples differ from those that were encoded (MD5)"


SOUND = Kind(
    name="sound",
    facts={
        "sample_rate": int,
        "channels": int,
        "n_samples": int,
        "gain": float,
        "bits": int,
        "header_size": int,
        "frame_samples": int,
        "start_s": float,
        **TABLE_FACTS,
    },
    words=(ENDING,),
    lists=("frame_size",),
    check=sound_problems,
    decode=sound_decode_problems,
)
"""sample_rate in hertz; n_samples of one channel; gain: what stored samples are multiplied by to be as loud as the
source; bits of a stored sample; header_size in bytes; frame_samples: of each FLAC frame but the last, and frame_size
the bytes of each; start_s: when it begins, in seconds after the sample's first frame.
"""
