"""What a modality brings to make shards: an encoder, which turns one raw file into the members of a sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from ...shards.sample import VideoIndex
from ..datasets.dataset import Source
from .profile import VideoProfile
from .video import encode_video


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """A source as it goes into a shard: members by their ending (all but `json`), what `json` says of them, and the
    numbers of the manifest: `video`, `facts` and `sums` as in `Sample`.
    """

    members: dict[str, bytes]
    meta: dict[str, Any]
    video: VideoIndex | None = None
    facts: dict[str, int | float] = field(default_factory=dict)
    sums: dict[str, list[float]] = field(default_factory=dict)


class Encoder(Protocol):
    """Frozen and small, for it is sent to processes with the sources of every shard."""

    @property
    def profile(self) -> str:
        """The name of its settings, for dataset.json."""
        ...

    def settings(self) -> dict[str, Any]:
        """All that its output depends on, JSON-able."""
        ...

    def encode(self, source: Source) -> Encoded:
        """The sample; the same source gives the same bytes. RejectError where it cannot become one."""
        ...


@dataclass(frozen=True, slots=True)
class VideoEncoder:
    """Videos in a profile: the member `mp4`."""

    video: VideoProfile

    @property
    def profile(self) -> str:
        """The profile's name."""
        return self.video.name

    def settings(self) -> dict[str, Any]:
        """The profile's."""
        return self.video.settings()

    def encode(self, source: Source) -> Encoded:
        """The video, or its window, as `encode_video` makes it."""
        made = encode_video(source.path, self.video, source.window)
        return Encoded(members={"mp4": made.data}, meta=made.meta, video=made.index)
