"""What one sample of a shard is: a key and its members, and what is said of a whole split."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ..members.kinds import check_form
from ..members.member import Member

KEY_PATTERN = re.compile(r"[A-Za-z0-9_/-]{1,80}")
"""A key has no dot: WebDataset readers cut a member's name at its first dot."""

COMPONENT_PATTERN = re.compile(r"[a-z0-9][a-z0-9_]*(\.[a-z0-9_]+)*")
MAX_COMPONENT = 19
"""A component is the whole ending of a member's name (`cam0.mp4`); a key and an ending fit into a USTAR header."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One sample on its way into a shard.

    `members` maps a component ("mp4", "cam0.mp4", "json") to its member, in the order in which they are written;
    `source` names the raw file (and window) that it was made of; `label` is an index into the dataset's label names, -1
    for none. `sums` are added over all samples of a split, name by name and place by place, into dataset.json: what
    means and deviations of the whole split are made of.
    """

    key: str
    members: dict[str, Member]
    source: str
    label: int = -1
    sums: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not KEY_PATTERN.fullmatch(self.key):
            raise ValueError(
                f"key {self.key!r} is not of the form {KEY_PATTERN.pattern} (no dots, at most 80 characters)"
            )
        if not self.members:
            raise ValueError(f"sample {self.key!r} has no members; it needs at least one, such as 'mp4'")
        for name, member in self.members.items():
            if not COMPONENT_PATTERN.fullmatch(name) or len(name) > MAX_COMPONENT:
                raise ValueError(
                    f"component {name!r} of {self.key!r} is not of the form {COMPONENT_PATTERN.pattern} (words of "
                    f"a-z, 0-9 and _ with dots between them, at most {MAX_COMPONENT} characters)"
                )
            check_form(f"component {name!r} of {self.key!r}", member)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reject:
    """A source that did not become a sample: what it was, at which stage it failed, and why."""

    source: str
    stage: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo:
    """What `dataset.json` of a split says besides the counts and checksums that the writer adds.

    `settings` is what the output depends on (profile, its numbers, samples per shard): a rerun with other settings is
    refused instead of mixed.
    """

    dataset: str
    split: str
    modality: str
    profile: str
    label_names: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
