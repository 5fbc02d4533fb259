"""Find the pauses of a long recording by the levels of its blocks, in one pass and in little memory.

A block is quiet below SILENT_DB, or BELOW_DB below the level that a twentieth of the blocks exceeds, so that room noise
between speech counts as quiet.
"""

from pathlib import Path

import av
import numpy as np

from maskstream.preprocess.encode.limits import lasts
from maskstream.preprocess.source import RejectError, explain
from maskstream.shards.arrays import Float64s
from maskstream.shards.media.local_media import open_media
from maskstream.shards.media.sound_packets import to_floats

from .encoder import BLOCK_S, SILENT_DB

PAUSE_S, MARGIN_S = 0.5, 0.1
"""A pause is quiet for at least this long, and this much of it belongs to the audio before it and after it."""
BELOW_DB = 35.0


def find_pauses(path: Path) -> tuple[list[tuple[float, bool]], float | None]:
    """Find where audio and pauses begin. Anything after damage is ignored.

    Args:
        path: Audio or video file.

    Returns:
        Pairs of a time in seconds, as in `Span`, and whether a pause begins there, alternating; and the end, None if
            nothing can be decoded.

    Raises:
        RejectError: The file cannot be opened.
    """
    powers, block_s, end_s = _measure_powers(path)
    if not len(powers):
        return [], None
    loud = float(np.percentile(powers, 95))
    quiet = powers < max(10 ** (SILENT_DB / 10), loud * 10 ** (-BELOW_DB / 10))
    turns = np.flatnonzero(np.diff(quiet, prepend=False, append=False))
    margin = round(MARGIN_S / block_s)
    found = [(0.0, False)]
    for begin, stop in turns.reshape(-1, 2).tolist():
        if (stop - begin) * block_s < PAUSE_S - 1e-9:
            continue
        found = [*found, ((begin + margin) * block_s, True)] if begin else [(0.0, True)]
        if stop < len(powers):
            found.append(((stop - margin) * block_s, False))
    return found, end_s


def _measure_powers(path: Path) -> tuple[Float64s, float, float]:
    """Return the mean square of each block of the first track, over its channels; the seconds of a block; and the total
    seconds.
    """
    powers: list[Float64s] = []
    held, count, length, rate = np.empty(0, np.float32), 0, 1, 1
    try:
        with open_media(path) as container:
            lasts((container.duration or 0) / av.time_base, container.size)
            if not container.streams.audio:
                raise RejectError("open", "has no audio track")
            try:
                for frame in container.decode(container.streams.audio[0]):
                    if not count:
                        rate, length = frame.sample_rate, max(1, round(BLOCK_S * frame.sample_rate))
                    count += frame.samples
                    held = np.concatenate([held, np.square(to_floats(frame)).mean(1)])
                    if len(held) >= 8 * length:
                        whole = len(held) // length * length
                        powers.append(held[:whole].reshape(-1, length).mean(1, dtype=np.float64))
                        held = held[whole:]
            except av.FFmpegError:
                pass
    except (av.FFmpegError, ValueError) as error:
        raise RejectError("open", f"is not audio that FFmpeg can open ({explain(error)})") from error
    rest = np.split(held, range(length, len(held), length)) if len(held) else []
    powers += [part.mean(keepdims=True, dtype=np.float64) for part in rest]
    return np.concatenate(powers) if count else np.empty(0), length / rate, count / rate
