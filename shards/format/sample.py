"""What one sample of a shard is: a key, its components, and where its frames lie in them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..members.facts import check_facts

KEY_PATTERN = re.compile(r"[A-Za-z0-9_/-]{1,80}")
"""A key has no dot: WebDataset readers cut a member's name at its first dot."""

COMPONENT_PATTERN = re.compile(r"[a-z0-9][a-z0-9_.]{0,15}")


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoIndex:
    """Where the frames of a video lie, so that a clip needs only the bytes of its GOPs.

    The member is `header fragment fragment ...`; `header` (ftyp and moov) followed by any run of whole fragments is
    itself a valid MP4. GOP g serves the frames `first_frame[g] <= frame < first_frame[g + 1]` in display order; its
    bytes are `offset[g] : offset[g] + size[g]` of the member. Where `lead[g + 1]` is not 0, that many of them are
    stored behind the next GOP's keyframe (an open GOP), so reading GOP g takes the fragment of GOP g + 1 too.

    A member that others wrote (`foreign`) may have any container. What its header and fragments would say stands in the
    file of packets of its shard (packet_table.py): at `table_offset` a header of `header_size` bytes, and behind it one
    record per packet, of which GOP g has `packets[g]`. Its GOPs are the bytes from their first packet to their last.

    Fields: fps in frames per second (the average one when `variable`), width and height in pixels as displayed,
    header_size in bytes, and int64 arrays of one length: first_frame, offset, size, lead, and packets where `foreign`.
    """

    codec: str
    fps: float
    n_frames: int
    width: int
    height: int
    header_size: int
    first_frame: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    lead: npt.NDArray[np.int64]
    table_offset: int | None = None
    packets: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if (self.table_offset is None) != (self.packets is None):
            raise ValueError("table_offset and packets belong together: give both, or none for a fragmented MP4")

    @property
    def foreign(self) -> bool:
        """Whether the packets are listed beside the tar, not in the member."""
        return self.table_offset is not None

    def gops_of(self, frames: npt.NDArray[np.int64]) -> tuple[int, int]:
        """The run of GOPs [start, stop) whose bytes hold all of `frames` (display order, any order, non-empty)."""
        first, last = int(frames.min()), int(frames.max())
        if first < 0 or last >= self.n_frames:
            raise ValueError(
                f"frames {first}..{last} of a video that has {self.n_frames} frames (0 to {self.n_frames - 1})"
            )
        start = int(np.searchsorted(self.first_frame, first, side="right")) - 1
        stop = int(np.searchsorted(self.first_frame, last, side="right"))
        if stop < len(self.lead) and self.lead[stop] and last >= int(self.first_frame[stop]) - int(self.lead[stop]):
            stop += 1
        return start, stop


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One sample on its way into a shard.

    `components` maps a member's ending ("mp4", "json") to its bytes, in the order in which they are written; `source`
    names the raw file (and window) that it was made of; `label` is an index into the dataset's label names, -1 for
    none; `video` says where the frames lie, `facts` are the other numbers of the manifest (facts.py). `sums` are added
    over all samples of a split, name by name and place by place, into dataset.json: what means and deviations of the
    whole split are made of.
    """

    key: str
    components: dict[str, bytes]
    source: str
    label: int = -1
    video: VideoIndex | None = None
    facts: dict[str, int | float] = field(default_factory=dict)
    sums: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_facts(self.key, self.facts)
        if not KEY_PATTERN.fullmatch(self.key):
            raise ValueError(
                f"key {self.key!r} is not of the form {KEY_PATTERN.pattern} (no dots, at most 80 characters)"
            )
        if not self.components:
            raise ValueError(f"sample {self.key!r} has no components; it needs at least one, such as 'mp4'")
        for name in self.components:
            if not COMPONENT_PATTERN.fullmatch(name):
                raise ValueError(f"component {name!r} of {self.key!r} is not of the form {COMPONENT_PATTERN.pattern}")


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
