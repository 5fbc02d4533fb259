"""What can be wrong between a FLAC member and the numbers of the manifest."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np

from ..format.manifest import Manifest
from ..media.flac import FlacError, FlacHeader, flac_header, md5_matches


def audio_problems(manifest: Manifest, row: int, body: bytes, decode: bool) -> Iterator[str]:
    """The header against the facts of sample `row`; with `decode` also the decoded samples against its checksum."""
    try:
        header = flac_header(body)
    except FlacError as error:
        yield str(error)
        return
    for name in ("sample_rate", "channels", "n_samples"):
        expected = int(manifest.facts[name][row])
        if (found := getattr(header, name)) != expected:
            yield f"its header says {name} {found}, not {expected}"
    points = header.points
    if (np.diff(points, axis=0) <= 0).any() or points[-1, 0] >= header.n_samples or points[-1, 1] >= len(body):
        yield "the points of its seek table do not rise within the stream"
    if decode:
        yield from _decode_problems(header, body)


def _decode_problems(header: FlacHeader, body: bytes) -> Iterator[str]:
    import av

    parts = []
    try:
        with av.open(io.BytesIO(body), "r", format="flac") as container:
            for frame in container.decode(audio=0):
                parts.append(frame.to_ndarray().reshape(-1, header.channels))
    except (av.FFmpegError, ValueError) as error:
        yield f"cannot be decoded ({error})"
        return
    samples = np.concatenate(parts).astype(np.int32) if parts else np.empty((0, header.channels), np.int32)
    samples >>= 8 if header.bits == 24 else 0
    if len(samples) != header.n_samples:
        yield f"has {len(samples)} samples, not {header.n_samples}"
    elif not md5_matches(header, samples):
        yield "its samples are not those that were encoded (MD5 differs)"
