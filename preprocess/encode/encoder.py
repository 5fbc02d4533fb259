"""The encoder protocol: each modality has an encoder that turns one source into the members of a sample.

An encoder may make something of all sources first, such as a tokenizer (`prepared`), and its settings say what, by a
checksum. So parts on several machines make the same, each by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from maskstream.preprocess.source import Source
from maskstream.shards.config import Config, Json, with_set
from maskstream.shards.members.member import Member

from .video.profile import PROFILES, VideoProfile


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """An encoded source: the members by component (without `json`), the contents of `json`, and sums as in `Sample`.

    signals: what the encoder knows of it of `SIGNALS`. pixels: those of its picture, uint8 (H, W) or (H, W, 3), blue
    first, where they were decoded.
    """

    members: dict[str, Member]
    meta: dict[str, Any]
    sums: dict[str, list[float]] = field(default_factory=dict)
    signals: dict[str, float] = field(default_factory=dict)
    pixels: npt.NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)


MadeT = TypeVar("MadeT")


def made_of(source: Source, *kinds: type[MadeT]) -> MadeT | None:
    """What a source's `made_by` makes, None if it has none. Raises TypeError if that is of none of `kinds`."""
    if source.made_by is None:
        return None
    found = source.made_by(source)
    if not isinstance(found, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"made_by of {source.id!r} gives {type(found).__name__}; this encoder takes {wanted}")
    return found


KEEP = "keep"
"""What to do with what is damaged: use what there is of it."""


class Encoder(Protocol):
    """Encodes sources of one modality. It is frozen and small, because every task carries one to its process."""

    modality: ClassVar[str]

    @property
    def profile(self) -> str:
        """The name of its settings in dataset.json."""
        ...

    def to_dict(self, *, defaults: bool = False, identity: bool = False) -> Json:
        """All settings that decide its output (see `Config`)."""
        ...

    def encode(self, source: Source) -> Encoded:
        """Encode a source; the same source gives the same bytes. Raises RejectError if it cannot become a sample."""
        ...


@runtime_checkable
class VideoEncoding(Protocol):
    """An encoder that stores video in a profile."""

    def in_profile(self, profile: VideoProfile) -> Encoder:
        """The same encoder with another video profile."""
        ...


@dataclass(frozen=True, slots=True)
class ProfiledEncoder(Config):
    """What the encoders of videos share. video: the profile in which they store them."""

    video: VideoProfile = PROFILES["train"]

    def in_profile(self, profile: VideoProfile) -> Self:
        """The same with videos in another profile. Raises ValueError for one that it cannot have."""
        return replace(self, video=profile)

    @property
    def profile(self) -> str:
        """The name of the video profile."""
        return self.video.name


def in_profile(encoder: Encoder, profile: VideoProfile | None) -> Encoder:
    """The encoder with the video profile, if one is given.

    Raises ValueError for a profile other than the default if the encoder stores no video.
    """
    if profile is None:
        return encoder
    if isinstance(encoder, VideoEncoding):
        return encoder.in_profile(profile)
    if profile != PROFILES["train"]:
        raise ValueError(f"profile {profile.name!r} is for video, but this dataset is {encoder.modality}; leave it out")
    return encoder


@runtime_checkable
class Preparing(Protocol):
    """An encoder that makes something of all sources before it encodes one, such as a tokenizer."""

    def prepared(self, sources: Mapping[str, Sequence[Source]]) -> Encoder:
        """The encoder that encodes; the same `sources` of each split give the same one."""
        ...


@runtime_checkable
class Attaching(Protocol):
    """An encoder whose split has further files beside dataset.json."""

    @property
    def attached(self) -> Mapping[str, bytes]:
        """Their contents by name. Its settings decide them."""
        ...


def with_settings(encoder: Encoder, assignments: Sequence[str]) -> Encoder:
    """The encoder with changed fields, such as "tokenizer=train:bpe:4000". ValueError for a field that it has not."""
    if not assignments:
        return encoder
    if not isinstance(encoder, Config):
        raise ValueError(f"the encoder of {encoder.modality} has no fields that can be set; leave --set out")
    own = ", ".join(name for name in encoder.to_dict(defaults=True) if name not in ("kind", "version"))
    changed = with_set(encoder, assignments, where=f"the encoder of {encoder.modality} has {own}")
    assert isinstance(changed, type(encoder))
    return changed


def damage_settings(encoder: Encoder, damage: str | None) -> list[str]:
    """The assignments by which an encoder does with damaged sources as `damage` says; none if nothing is said, or
    "keep" to an encoder that has no choice.
    """
    if damage is None or (damage == KEEP and "damage" not in encoder.to_dict(defaults=True)):
        return []
    return [f"damage={damage}"]


def prepared(encoder: Encoder, sources: Mapping[str, Sequence[Source]]) -> Encoder:
    """The encoder that encodes, after what it makes of the `sources` of each split."""
    return encoder.prepared(sources) if isinstance(encoder, Preparing) else encoder


def list_attached_files(encoder: Encoder) -> Mapping[str, bytes]:
    """The files that the encoder's splits have beside dataset.json."""
    return encoder.attached if isinstance(encoder, Attaching) else {}
