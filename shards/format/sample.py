"""A sample of a shard, a reject, and the description of a split."""

import re
from dataclasses import dataclass, field
from typing import Any

import xxhash

from maskstream.shards.members.kinds import check_form
from maskstream.shards.members.member import Member

KEY_PATTERN = re.compile(r"[A-Za-z0-9_/-]{1,80}")
"""A key has no dot, because WebDataset readers split a member's name at its first dot."""

COMPONENT_PATTERN = re.compile(r"[a-z0-9][a-z0-9_]*(\.[a-z0-9_]+)*")
MAX_COMPONENT = 19
"""Maximum length of a component, the whole ending of a member's name (`cam0.mp4`). Together with a key, it fits a USTAR
header.
"""

TARGETS = "targets"
"""Modality of a split of stored targets; also the key in its settings that describes their source, and a batch's field.
"""


def make_targets_key(key: str) -> str:
    """Return the key of a sample's targets: the sample's key, or its hash if a foreign tar's key does not match
    KEY_PATTERN.
    """
    return key if KEY_PATTERN.fullmatch(key) else xxhash.xxh3_128_hexdigest(key.encode())


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One sample to be written into a shard.

    Attributes:
        key: Unique key within the split, which matches KEY_PATTERN.
        members: Members by component ("mp4", "cam0.mp4", "json"), in the order of writing.
        source: Name of the raw file (and of the window in it).
        label: Index of the dataset's label names; -1 for none.
        sums: Vectors by name, which dataset.json adds up over the split to compute means and standard deviations.

    Raises:
        ValueError: The key, a component or a member is malformed, or there are no members.
    """

    key: str
    members: dict[str, Member]
    source: str
    label: int = -1
    sums: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not KEY_PATTERN.fullmatch(self.key):
            raise ValueError(f"key {self.key!r} does not match {KEY_PATTERN.pattern} (no dots, at most 80 characters)")
        if not self.members:
            raise ValueError(f"sample {self.key!r} has no members; it needs at least one, such as 'mp4'")
        for name, member in self.members.items():
            if not COMPONENT_PATTERN.fullmatch(name) or len(name) > MAX_COMPONENT:
                raise ValueError(
                    f"component {name!r} of {self.key!r} does not match {COMPONENT_PATTERN.pattern} (words of a-z, 0-9 "
                    f"and _, separated by dots, at most {MAX_COMPONENT} characters)"
                )
            check_form(f"component {name!r} of {self.key!r}", member)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reject:
    """A source that did not become a sample.

    Attributes:
        source: Name of the source.
        stage: Stage at which it failed.
        reason: Why it failed.
    """

    source: str
    stage: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo:
    """Contents of a split's `dataset.json` without counts and checksums, which the writer adds.

    Attributes:
        dataset: Name of the dataset.
        split: Name of the split, such as `train`.
        modality: Modality of the samples.
        profile: Name of the encoding profile; `foreign` for an index of foreign tars.
        label_names: Label names by number; () if labels have no names.
        settings: All settings that determine the output (encoder, samples per shard). A rerun with others is refused.
    """

    dataset: str
    split: str
    modality: str
    profile: str
    label_names: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
