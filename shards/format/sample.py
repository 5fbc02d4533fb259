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
"""The longest component, which is the whole ending of a member's name (`cam0.mp4`). With a key it fits a USTAR header.
"""

TARGETS = "targets"
"""The modality of a split of stored targets, the field of its settings that says what it is of, and that of a batch."""


def make_targets_key(key: str) -> str:
    """The key of the targets of a sample: the same, or its hash, where foreign tars have keys that ours may not."""
    return key if KEY_PATTERN.fullmatch(key) else xxhash.xxh3_128_hexdigest(key.encode())


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One sample to be written into a shard.

    `members` maps a component ("mp4", "cam0.mp4", "json") to its member, in the order of writing. `source` names the
    raw file (and window). `label` indexes the dataset's label names; -1 means none. `sums` are vectors by name, which
    dataset.json adds up over the split, for means and deviations.
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
    """A source that did not become a sample, the stage at which it failed, and the reason."""

    source: str
    stage: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo:
    """The contents of a split's `dataset.json` without the counts and checksums, which the writer adds.

    `settings` holds all that decides the output (encoder, samples per shard); a rerun with other settings is refused.
    """

    dataset: str
    split: str
    modality: str
    profile: str
    label_names: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
