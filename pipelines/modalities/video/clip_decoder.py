"""Decode clips from video files for data of other libraries: bytes, a path or a file in, a row out.

    clips = ClipDecoder(VideoClip(frames=16, stride=4), mask=masks.Tube(ratio=0.9))
    batch = clips("video.mp4", key="clip-7", seed=0, epoch=2)      # a VideoBatch of one row
    batch = VideoBatch.concatenated([batch, ...])                  # equals a loader's batch of these samples

Frame numbers, crop and mask are drawn by (seed, epoch, key), as in a loader of `maskstream index`, and pixels are
identical.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch

from maskstream.pipelines.decode.cpu import DecodedFrames, decode_frames, select_pts
from maskstream.pipelines.masks import Cues, Draw, MaskBatch
from maskstream.pipelines.modalities.rows import NO_CUES, Memory, SampleRows
from maskstream.pipelines.stream.rng import Place, sample_rng
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.errors import DataError, MaskstreamError, OutageError, SampleError
from maskstream.shards.format.data_errors import explain_data_error, find_outage
from maskstream.shards.format.dataset import FOREIGN
from maskstream.shards.keywords import narrow, takes_fields
from maskstream.shards.media.found_video import FoundVideo, bytes_of, open_video
from maskstream.shards.media.gop_notes import GopNotes
from maskstream.shards.media.local_media import MediaError, read_regular_size

from .batch import VideoBatch
from .clip import VideoClip
from .clip_plan import ClipPlan
from .data import ClipSettings, VideoData
from .rows import ClipRowMaker

VideoFile = bytes | bytearray | memoryview | str | Path | BinaryIO
"""Bytes of a video file, its path, or a seekable binary file."""


@dataclass(frozen=True, kw_only=True)
class DecoderSettings(ClipSettings):
    """Settings of `ClipDecoder`.

    Attributes:
        profile: Profile of the split that contains the file as a member, such as "train", to create the same rows as
            its loader. It decides where clips begin and whether motion vectors are flow.
    """

    clip: VideoClip = field(default_factory=VideoClip, kw_only=False)
    profile: str = FOREIGN


class ClipDecoder:
    """Creates, from a video file, the row that a loader with the same settings creates for the sample with this key.

    That loader reads the tars that contain the files, after `maskstream index`, and shuffles. Keyframes are the ones
    flagged in the file, which the index can verify. A decoder contains only settings: many threads may call it, and it
    can be pickled.
    """

    @takes_fields(DecoderSettings).in_method
    def __init__(self, settings: DecoderSettings) -> None:
        """Create a decoder.

        Args:
            settings: Settings that determine how a clip is processed.

        Raises:
            ValueError: A value is not allowed, or needs a split.
        """
        self.data, self.profile = narrow(VideoData, settings), settings.profile
        self._rows, self._finish = self.data.of_files(self.profile)

    def __repr__(self) -> str:
        return f"ClipDecoder({self.data}, profile={self.profile!r})"

    def __call__(
        self, source: VideoFile, *, key: str, seed: int = 0, epoch: int = 0, progress: float = 0.0
    ) -> VideoBatch:
        """Decode one sample into a batch with a row for each view, on the CPU; its label is -1.

        For an MP4 whose moov lists its packets, only the moov and the bytes of the clip are read; other files are read
        completely. A file is left at an arbitrary position.

        Args:
            source: An mp4, mov, mkv or webm with H.264, HEVC, VP9 or AV1.
            key: Key of the sample.
            seed: Random seed, as in a loader.
            epoch: Epoch of the draws.
            progress: Progress of the run, from 0 to 1, for masks that change over it.

        Raises:
            SampleError: The video cannot be read or decoded, or is shorter than a clip that does not repeat.
            OSError: The path cannot be opened.
        """
        name = str(source) if isinstance(source, str | Path) else str(getattr(source, "name", "bytes"))
        item = _Shown(seed, epoch, key, self.data.views, Place(progress=progress))
        with _opened(source) as file:
            read, size_bytes = bytes_of(file)
            with _reading(name, key):
                video = open_video(read, size_bytes)
                plan = self._plan(item, video)
                decoded, notes = _decoded(self._rows, plan, video)
        return self._finish(self._fill_rows(item, plan, decoded, notes), torch.device("cpu"))

    def _plan(self, item: _Shown, video: FoundVideo) -> ClipPlan:
        clip, index = self._rows.clip, video.index
        if clip.short in ("skip", "error") and index.n_frames < clip.span(index.fps):
            raise DataError(
                f"has {index.n_frames} frames, fewer than the clip ({clip.frames} frames, {clip.spacing}); "
                "use a shorter clip, or short='repeat' or 'loop'"
            )
        return self._rows.plan_video(item, index, self._rows.numbers(item, index))

    def _fill_rows(self, item: _Shown, plan: ClipPlan, decoded: DecodedFrames, notes: GopNotes) -> VideoBatch:
        """Create the rows of a clip and their masks, except for the device transform."""
        rows, stats = self._rows, Stats()
        memory = Memory([plan], item.views)
        batch, own = rows.layout(memory), SampleRows(0, item.views, memory.arrays)
        memory.key[:] = [item.key] * item.views
        memory.label.fill_(-1)
        rows.add_flow([rows.write(item, plan, decoded, notes, batch, own, stats)], stats)
        (masked,), made = rows.masks, dict[str, MaskBatch]()
        if masked.mask is not None and masked.by_sampler:
            needs = masked.mask.needs
            cues = [rows.cues_of(plan, batch, view, view, needs) if needs else NO_CUES for view in range(item.views)]
            maps = [masked.maps(item, view, its) for view, its in enumerate(cues)]
            rows.add_tokens(plan, maps, stats)
            made[masked.field] = masked.mask.batched(masked.grid, [own for own in maps if own is not None])
        return rows.join(batch, [plan], made)


class _Shown(NamedTuple):
    """A sample outside any split, in an epoch and position of the run."""

    seed: int
    epoch: int
    key: str
    views: int
    place: Place

    def rng(self, purpose: str, view: int = 0) -> np.random.Generator:
        """Return the random generator of one decision for one view."""
        return sample_rng(self.seed, self.epoch, self.key, view, purpose)

    def rngs(self, purpose: str) -> list[np.random.Generator]:
        """Return the random generators of one decision for all views."""
        return [self.rng(purpose, view) for view in range(self.views)]

    def draw(self, view: int, cues: Cues = NO_CUES, part: str = "", rng: np.random.Generator | None = None) -> Draw:
        """Return the draw of a view's mask."""
        return Draw.of(self.seed, self.epoch, self.key, view, self.place, cues, part, rng)


def _decoded(rows: ClipRowMaker, plan: ClipPlan, video: FoundVideo) -> tuple[DecodedFrames, GopNotes]:
    """Decode the frames of a clip, reading only its packets, and return the data stored for its GOPs.

    Raises:
        DataError: The packets do not decode.
    """
    first, stop = video.index.gops_of(plan.numbers)
    packets, first_frame = video.gops(first, stop), int(video.index.first_frame[first])
    moving = rows.moving(plan)
    wanted = select_pts(packets, first_frame, np.concatenate([plan.numbers, moving]))
    last = int(np.flatnonzero(np.isin(packets.pts, wanted))[-1]) + 1
    begin = int(packets.start[:last].min())
    end = int((packets.start[:last] + packets.size[:last]).max())
    notes = video.notes(packets) if len(moving) else GopNotes()
    decoded = decode_frames(
        video.track,
        memoryview(video.read(begin, end - begin)),
        first_frame,
        plan.numbers,
        size=(plan.video.width, plan.video.height),
        packets=replace(packets, start=packets.start - begin),
        vectors_of=moving,
        stored=notes.flows,
    )
    if any(frame.interlaced_frame for frame in decoded.frames):
        raise DataError(
            "is interlaced, which is not corrected here; make shards from it with `maskstream shards folder`"
        )
    return decoded, notes


@contextmanager
def _opened(source: VideoFile) -> Iterator[bytes | bytearray | memoryview | BinaryIO]:
    """Open a source as bytes or file; a path is closed afterwards."""
    if not isinstance(source, str | Path):
        yield source
        return
    try:
        read_regular_size(Path(source))
    except MediaError as error:
        raise ValueError(f"{source} {error}; pass the path of a video file") from error
    with open(source, "rb", buffering=0) as file:
        yield file


@contextmanager
def _reading(name: str, key: str) -> Iterator[None]:
    """Raise SampleError if the block fails because of the data, OutageError if because of the machine."""
    try:
        yield
    except Exception as error:
        if (outage := find_outage(error)) is not None:
            raise OutageError(f"{name} cannot be read now ({outage.strerror})") from error
        reason = str(error) if isinstance(error, MaskstreamError) else explain_data_error(error)
        if reason is None:
            raise
        raise SampleError(shard=name, key=key, component="video", reason=reason) from error
