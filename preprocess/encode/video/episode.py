"""The encoder of a robot's episodes as LeRobot keeps them: a camera's video, and arrays with a row for each frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.preprocess.encode.encoder import Encoded
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.config import Config
from maskstream.shards.members.array import array_member
from maskstream.shards.members.member import Member
from maskstream.shards.members.video import video_member

from .profile import PROFILES, VideoProfile
from .remux import cut_out
from .video import EncodedVideo, encode_video


@dataclass(frozen=True, slots=True)
class EpisodeEncoder(Config):
    """Encodes an episode: the video at `path`, and the rows of the Parquet file in `parts` that have its number.

    meta["episode"] is the number, meta["arrays"] the column and the shape of a row of each array by its name, and
    meta["span_s"] where the episode is in the video, None for all of it. The arrays are the members NAME.npy.
    """

    version: ClassVar[int] = 3
    modality: ClassVar[str] = "video"

    video: VideoProfile = PROFILES["train"]

    def in_profile(self, profile: VideoProfile) -> EpisodeEncoder:
        """The same in another profile. Raises ValueError for one that changes which frames there are."""
        if profile.fps is not None:
            raise ValueError(f"profile {profile.name!r} leaves frames out, but actions have a row for each; use train")
        return replace(self, video=profile)

    @property
    def profile(self) -> str:
        """The profile's name."""
        return self.video.name

    def encode(self, source: Source) -> Encoded:
        """Encode an episode. Raises RejectError if it has not as many frames as rows."""
        arrays = _arrays(source.parts[0], source.meta["episode"], source.meta["arrays"])
        n_rows = len(next(iter(arrays.values())))
        span_s = source.meta["span_s"]
        video = encode_video(source.path, self.video) if span_s is None else self._part(source.path, span_s, n_rows)
        if video.index.n_frames != n_rows:
            raise RejectError("check", f"has {video.index.n_frames} frames, but {n_rows} rows of actions and states")
        members: dict[str, Member] = {"mp4": video_member(video.data, video.index)}
        members |= {f"{name}.npy": array_member(array) for name, array in arrays.items()}
        return Encoded(members=members, meta=video.meta)

    def _part(self, path: Path, span_s: tuple[float, float], n_rows: int) -> EncodedVideo:
        """Encode the part of a video that an episode is. Of profile copy, it must begin with a keyframe."""
        cut = cut_out(path, (span_s[0], span_s[1]))
        window = (cut.lead, cut.lead + n_rows)
        with TemporaryDirectory() as folder:
            part = Path(folder) / "episode.mp4"
            part.write_bytes(cut.data)
            return encode_video(part, self.video, None if window == (0, cut.n_frames) else window)


def _arrays(path: Path, episode: int, columns: dict[str, tuple[str, list[int]]]) -> dict[str, npt.NDArray[Any]]:
    """Each array (T, ...) by its name. Raises RejectError if the file does not have them, OSError if it cannot be
    read.
    """
    wanted = [column for column, _ in columns.values()]
    try:
        table = pq.read_table(path, columns=[*wanted, "frame_index"], filters=[("episode_index", "=", episode)])
        table = table.sort_by("frame_index").combine_chunks()
        found = {name: _array(table.column(column), shape) for name, (column, shape) in columns.items()}
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise RejectError("decode", f"the rows in {path.name} cannot be read ({error})") from error
    if not table.num_rows:
        raise RejectError("decode", f"{path.name} has no rows of episode {episode}")
    return found


def _array(column: Any, shape: list[int]) -> npt.NDArray[Any]:
    """A column of numbers, or of lists of them, as an array (T, ...) with rows of a shape; booleans become uint8."""
    rows, values = len(column), column.combine_chunks()
    while pa.types.is_nested(values.type):
        values = values.flatten()
    array = np.asarray(values.to_numpy(zero_copy_only=False))
    if array.dtype.kind not in "fiub":
        raise ValueError(f"a column of {column.type} holds no numbers")
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    return np.ascontiguousarray(array.reshape(rows, *shape)).astype(array.dtype.newbyteorder("<"), copy=False)
