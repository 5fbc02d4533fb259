"""The encoder protocol: each modality has an encoder that turns one source into the members of a sample.

An encoder may first compute something from all sources, such as a tokenizer (`prepared`). Its settings then identify
the result by a checksum, so that parts on several machines compute the same result independently.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

from maskstream.preprocess.source import Source
from maskstream.shards.arrays import UInt8s
from maskstream.shards.config import Config, Json, with_set
from maskstream.shards.members.member import Member

from .video.profile import PROFILES, VideoProfile


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """An encoded source.

    Attributes:
        members: Members by component, without `json`.
        meta: Contents of `json`.
        sums: Sums for the statistics of the split, as in `Sample`.
        signals: Values of `SIGNALS` that the encoder measured.
        pixels: Decoded pixels of its image, uint8 (H, W) or (H, W, 3), BGR; None if they were not decoded.
    """

    members: dict[str, Member]
    meta: dict[str, Any]
    sums: dict[str, list[float]] = field(default_factory=dict)
    signals: dict[str, float] = field(default_factory=dict)
    pixels: UInt8s | None = field(default=None, repr=False, compare=False)


MadeT = TypeVar("MadeT")


def made_of(source: Source, *kinds: type[MadeT]) -> MadeT | None:
    """Return the object that the source's `made_by` creates; None if the source is a file.

    Args:
        source: Source to create.
        kinds: Types that the encoder accepts.

    Raises:
        TypeError: The object has another type.
    """
    if source.made_by is None:
        return None
    found = source.made_by(source)
    if not isinstance(found, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"made_by of {source.id!r} returned {type(found).__name__}; this encoder needs {wanted}")
    return found


KEEP = "keep"
"""Value of `damage`: use the intact part of a damaged source."""


class Encoder(Protocol):
    """Encodes sources of one modality. It is frozen and small, because every task carries one to its process."""

    modality: ClassVar[str]

    @property
    def profile(self) -> str:
        """Name of its settings in dataset.json."""
        ...

    def to_dict(self, *, defaults: bool = False, identity: bool = False) -> Json:
        """Return all settings that affect its output (see `Config`)."""
        ...

    def encode(self, source: Source) -> Encoded:
        """Encode a source; the same source yields the same bytes.

        Args:
            source: Source to encode.

        Raises:
            RejectError: The source cannot become a sample.
        """
        ...


@runtime_checkable
class VideoEncoding(Protocol):
    """An encoder that stores video in a profile."""

    def in_profile(self, profile: VideoProfile) -> Encoder:
        """Return the same encoder with another video profile."""
        ...


@dataclass(frozen=True, slots=True)
class ProfiledEncoder(Config):
    """Base class of encoders that store video.

    Attributes:
        video: Profile in which videos are stored.
    """

    video: VideoProfile = PROFILES["train"]

    def in_profile(self, profile: VideoProfile) -> Self:
        """Return the encoder with another video profile. Raise ValueError if the encoder does not support it."""
        return replace(self, video=profile)

    @property
    def profile(self) -> str:
        """Name of the video profile."""
        return self.video.name


def in_profile(encoder: Encoder, profile: VideoProfile | None) -> Encoder:
    """Return the encoder with a video profile.

    Args:
        encoder: Encoder of any modality.
        profile: Profile to use; None keeps the encoder's current profile.

    Raises:
        ValueError: The encoder stores no video, and the profile is not the default.
    """
    if profile is None:
        return encoder
    if isinstance(encoder, VideoEncoding):
        return encoder.in_profile(profile)
    if profile != PROFILES["train"]:
        raise ValueError(f"profile {profile.name!r} is for video, but this dataset is {encoder.modality}; remove it")
    return encoder


@runtime_checkable
class Preparing(Protocol):
    """An encoder that computes something from all sources before it encodes one, such as a tokenizer."""

    def prepared(self, sources: Mapping[str, Sequence[Source]]) -> Encoder:
        """Return the encoder to use; the same `sources` by split yield an equal one."""
        ...


@runtime_checkable
class Attaching(Protocol):
    """An encoder whose split has more files next to dataset.json."""

    @property
    def attached(self) -> Mapping[str, bytes]:
        """Contents of these files by name. They depend only on the encoder's settings."""
        ...


def with_settings(encoder: Encoder, assignments: Sequence[str]) -> Encoder:
    """Return the encoder with changed fields.

    Args:
        encoder: Encoder to change.
        assignments: Texts FIELD=VALUE, such as "tokenizer=train:bpe:4000".

    Raises:
        ValueError: The encoder does not have such a field, or the value is not allowed.
    """
    if not assignments:
        return encoder
    if not isinstance(encoder, Config):
        raise ValueError(f"the {encoder.modality} encoder has no settings; remove --set")
    own = ", ".join(name for name in encoder.to_dict(defaults=True) if name not in ("kind", "version"))
    changed = with_set(encoder, assignments, where=f"the encoder of {encoder.modality} has {own}")
    assert isinstance(changed, type(encoder))
    return changed


def damage_settings(encoder: Encoder, damage: str | None) -> list[str]:
    """Return the assignments that make an encoder treat damaged sources as `damage` specifies; none for None, or for
    "keep" if the encoder has no such setting.
    """
    if damage is None or (damage == KEEP and "damage" not in encoder.to_dict(defaults=True)):
        return []
    return [f"damage={damage}"]


def prepared(encoder: Encoder, sources: Mapping[str, Sequence[Source]]) -> Encoder:
    """Return the encoder to use, after it has computed its result from the `sources` of each split."""
    return encoder.prepared(sources) if isinstance(encoder, Preparing) else encoder


def list_attached_files(encoder: Encoder) -> Mapping[str, bytes]:
    """Return the files that the encoder's splits have next to dataset.json, by name."""
    return encoder.attached if isinstance(encoder, Attaching) else {}
