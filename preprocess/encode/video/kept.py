"""Encode the clips of a scene from the frames in which scenes are detected, and cache them until shards are written.

A long file is then decoded only once. A cached clip equals the result of `encode_video` for its span, byte for byte, so
it may be lost at any time and is then encoded from the file. Nothing is cached if that is not certain: for damaged
frames, codecs whose decoders do not restart at keyframes, a variable rate, interlaced frames, frames of several sizes,
and scenes whose frames would take more than MOST_BYTES.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import numpy as np
import xxhash
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from maskstream.preprocess.source import RejectError, Source, Span
from maskstream.shards.media.video_index import VideoIndex

from .convert import Converter
from .profile import VideoProfile
from .scenes import SceneStart
from .source import Ending, found_part, open_video
from .video import EncodedVideo, encode_frames

MOST_BYTES = 256 << 20
"""The frames of a longer scene are not held."""
_DIGEST_BYTES = 16


class ClipFiles(Protocol):
    """Files in which the clips of a video are cached."""

    def spans(self, begin_s: float, stop_s: float, *, is_last: bool) -> list[Span]:
        """The clips of a scene. is_last: whether the file ends with it."""
        ...

    def has(self, span: Span) -> bool:
        """Whether a cached clip still belongs to the current file."""
        ...

    def put(self, span: Span, data: bytes) -> None:
        """Keep a clip."""
        ...


class _Converted(Converter):
    """Takes frames unchanged, because another converter has already converted them."""

    def __init__(self, own: Converter) -> None:
        self.first, self.fit = own.first, own.fit

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        return frame


@dataclass(slots=True)
class SceneEncoder:
    """Encodes the clips of scenes that begin and end in a stretch (`SceneFrames`). state: the size in bytes and the
    time of change of the file at `path`, which is open.
    """

    path: Path
    container: InputContainer
    stream: VideoStream
    profile: VideoProfile
    files: ClipFiles
    state: tuple[int, int]
    convert: Converter
    is_over: bool = False
    _begin_s: float | None = None
    _held: list[VideoFrame] = field(default_factory=list)
    _unit: Fraction = Fraction(1)

    def begin(self, start: SceneStart, *, is_whole: bool) -> None:
        """Called when a scene begins, so the previous one is complete."""
        self._end(start.time_s, is_last=False, is_whole=is_whole)
        if not (start.black or self.is_over):
            self._begin_s = start.time_s

    def add(self, frame: VideoFrame) -> None:
        """Convert and store a frame of the scene."""
        if self._begin_s is None:
            return
        try:
            shown = self.convert(frame)
        except (RejectError, av.FFmpegError):
            self._give_up()
            return
        if frame.pts is None or frame.interlaced_frame or not self.convert.is_uniform:
            self._give_up()
            return
        if not self._held:
            self._unit = frame.time_base or self._unit
        shown.pts, shown.time_base = frame.pts, self._unit
        self._held.append(shown)
        if len(self._held) * shown.width * shown.height * 3 // 2 > MOST_BYTES:
            self.leave()

    def leave(self) -> None:
        """The scene is not kept."""
        self._begin_s, self._held = None, []

    def end(self, last_s: float, *, is_whole: bool) -> None:
        """The file ends, so its last scene is complete."""
        self._end(last_s, is_last=True, is_whole=is_whole)

    def _give_up(self) -> None:
        self.leave()
        self.is_over = True

    def _end(self, stop_s: float, *, is_last: bool, is_whole: bool) -> None:
        if not is_whole:
            self._give_up()
        if self._begin_s is not None:
            for span in self.files.spans(self._begin_s, stop_s, is_last=is_last):
                self._keep(span)
        self.leave()

    def _keep(self, span: Span) -> None:
        if self.is_over or self.files.has(span):
            return
        try:
            video = self._encoded(span)
        except (RejectError, av.FFmpegError):  # the shard's task will report the error
            return
        if video is not None:
            self.files.put(span, packed(video, self.state))

    def _encoded(self, span: Span) -> EncodedVideo | None:
        """The clip; None if it has other frames than those that are held."""
        if span.start_s:
            part = found_part(self.path, self.container, self.stream, span, seeks=True)
        else:
            with open_video(self.path) as (container, stream):
                part = found_part(self.path, container, stream, span, seeks=False)
        if part is None or part.window is not None:
            return None
        if part.facts.variable or part.facts.pixel_aspect != (self.stream.sample_aspect_ratio or None):
            self._give_up()
            return None
        own = [one for one in self._held if _is_in(one.pts, part.first, part.stop)]
        if len(own) != part.facts.n_frames or own[0].pts != part.first or part.first != part.begin:
            return None
        ending = Ending("reject", 1.0)
        return encode_frames(part.facts, ending.of(iter(own)), self.profile, span, _Converted(self.convert), ending)


def _is_in(pts: int | None, first: int, stop: int | None) -> bool:
    return pts is not None and first <= pts and (stop is None or pts < stop)


@contextmanager
def open_scene_encoder(path: Path, profile: VideoProfile, files: ClipFiles) -> Iterator[SceneEncoder]:
    """Yield the encoder of the clips of a file's scenes; the file stays open during the block."""
    state = _read_state(path)
    with open_video(path) as (container, stream):
        convert = Converter(profile.short_side, stream.sample_aspect_ratio or None)
        yield SceneEncoder(path, container, stream, profile, files, state, convert)


def _read_state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def packed(video: EncodedVideo, state: tuple[int, int]) -> bytes:
    """Return a clip of a file in this state as file contents: a checksum of the rest, a line of JSON, and the MP4."""
    index = video.index
    facts = {
        "state": state,
        "meta": video.meta,
        "start_s": video.start_s,
        "signals": video.signals,
        "facts": index.facts,
        "words": index.words,
        "lists": {name: values.tolist() for name, values in index.lists.items()},
    }
    body = json.dumps(facts).encode() + b"\n" + video.data
    return xxhash.xxh3_128_digest(body) + body


def find_kept_video(source: Source) -> EncodedVideo | None:
    """The clip that is kept of a source; None if there is none, it is damaged, or its file has changed."""
    if source.kept is None:
        return None
    try:
        whole = source.kept.read_bytes()
        state = _read_state(source.path)
    except OSError:
        return None
    body = whole[_DIGEST_BYTES:]
    if xxhash.xxh3_128_digest(body) != whole[:_DIGEST_BYTES]:
        return None
    line, _, data = body.partition(b"\n")
    found = json.loads(line)
    if tuple(found["state"]) != state:
        return None
    lists = {name: np.array(values, np.int64) for name, values in found["lists"].items()}
    index = VideoIndex.of(found["facts"], found["words"], lists)
    return EncodedVideo(data=data, index=index, meta=found["meta"], start_s=found["start_s"], signals=found["signals"])
