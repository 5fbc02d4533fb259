"""What a modality brings to make shards: an encoder, which turns one raw file into the members of a sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from ...shards.config import Json
from ...shards.members.member import Member
from ..source import Source
from .video.profile import PROFILES, VideoProfile


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """A source as it goes into a shard: members by component (all but `json`), and what `json` says of them; `sums` as
    in `Sample`.
    """

    members: dict[str, Member]
    meta: dict[str, Any]
    sums: dict[str, list[float]] = field(default_factory=dict)


class Encoder(Protocol):
    """Frozen and small, for it is sent to processes with the sources of every shard. modality: of its samples."""

    modality: ClassVar[str]

    @property
    def profile(self) -> str:
        """The name of its settings, for dataset.json."""
        ...

    def to_dict(self, *, defaults: bool = False, identity: bool = False) -> Json:
        """All that its output depends on (see `Config`)."""
        ...

    def encode(self, source: Source) -> Encoded:
        """The sample; the same source gives the same bytes. RejectError where it cannot become one."""
        ...


@runtime_checkable
class VideoEncoding(Protocol):
    """An encoder of what holds video, which is stored in a profile."""

    def in_profile(self, profile: VideoProfile) -> Encoder:
        """The same with videos in another profile."""
        ...


def in_profile(encoder: Encoder, profile: VideoProfile | None) -> Encoder:
    """The encoder with videos in a profile, if one is given; ValueError for one other than the default where it holds
    no video.
    """
    if profile is None:
        return encoder
    if isinstance(encoder, VideoEncoding):
        return encoder.in_profile(profile)
    if profile != PROFILES["train"]:
        raise ValueError(f"profile {profile.name!r} is of video, and this dataset is {encoder.modality}; leave it out")
    return encoder
