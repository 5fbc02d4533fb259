"""Where the frames of a video lie in its member."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]

GOP_LISTS = ("gop_first_frame", "gop_offset", "gop_size", "gop_lead", "gop_packets")
"""The columns of first_frame, offset, size, lead and packets."""


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
    first_frame: Int64s
    offset: Int64s
    size: Int64s
    lead: Int64s
    table_offset: int | None = None
    packets: Int64s | None = None

    def __post_init__(self) -> None:
        if (self.table_offset is None) != (self.packets is None):
            raise ValueError("table_offset and packets belong together: give both, or none for a fragmented MP4")

    @classmethod
    def of(cls, facts: Mapping[str, int | float], words: Mapping[str, str], lists: Mapping[str, Int64s]) -> Self:
        """The index that the columns of a component of the kind `video` hold."""
        foreign = "table_offset" in facts
        return cls(
            codec=words["codec"],
            fps=float(facts["fps"]),
            n_frames=int(facts["n_frames"]),
            width=int(facts["width"]),
            height=int(facts["height"]),
            header_size=int(facts["header_size"]),
            first_frame=lists["gop_first_frame"],
            offset=lists["gop_offset"],
            size=lists["gop_size"],
            lead=lists["gop_lead"],
            table_offset=int(facts["table_offset"]) if foreign else None,
            packets=lists["gop_packets"] if foreign else None,
        )

    @property
    def facts(self) -> dict[str, int | float]:
        """The numbers of the columns."""
        names = ("fps", "n_frames", "width", "height", "header_size")
        found: dict[str, int | float] = {name: getattr(self, name) for name in names}
        return found if self.table_offset is None else {**found, "table_offset": self.table_offset}

    @property
    def words(self) -> dict[str, str]:
        """The texts of the columns."""
        return {"codec": self.codec}

    @property
    def lists(self) -> dict[str, Int64s]:
        """The lists of the columns, an entry for each GOP."""
        arrays = (self.first_frame, self.offset, self.size, self.lead, self.packets)
        return {name: array for name, array in zip(GOP_LISTS, arrays, strict=True) if array is not None}

    @property
    def foreign(self) -> bool:
        """Whether the packets are listed beside the tar, not in the member."""
        return self.table_offset is not None

    def gops_of(self, frames: Int64s) -> tuple[int, int]:
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
