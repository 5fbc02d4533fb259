"""The kind `video`: its columns are a `VideoIndex`, which is checked against the boxes and the decoded frames."""

from collections.abc import Iterator
from itertools import pairwise
from operator import add, gt, lt

import numpy as np

from maskstream.shards.arrays import Int64s
from maskstream.shards.media.gop_notes import ANCHOR_STRIDE, gop_notes
from maskstream.shards.media.limits import MAX_PIXELS, most_pixels
from maskstream.shards.media.mp4 import Mp4Error, read_fragments, read_header
from maskstream.shards.media.video_index import ANCHOR_REACH, GOP_LISTS, HEADER, VideoIndex, measure_anchor_reach

from .member import ENDING, TABLE_FACTS, Kind, Member

MIN_SIDE = 2
"""Minimum width and height of a video in pixels: chroma has half of them."""
MAX_FPS = 1e6
MAX_HEADER_BYTES = 1 << 24
"""Longest header of an indexed video in its packets file."""


def video_member(data: bytes, index: VideoIndex) -> Member:
    """Return a video as a member with its index."""
    return Member(kind=VIDEO.name, data=data, facts=index.facts, words=index.words, lists=index.lists)


def find_video_problems(member: Member) -> Iterator[str]:
    """Check the table of GOPs, and compare it with the boxes."""
    index = VideoIndex.of(member.facts, member.words, member.lists)
    problems = list(find_gop_table_problems(index, len(member.data)))
    yield from problems or find_box_problems(index, member.data)
    if not problems and index.header is not None and index.header != member.data[: index.header_size]:
        yield "its header in the manifest differs from the one in the member"


def find_video_decode_problems(member: Member) -> Iterator[str]:
    """Decode the video and compare it with its index, if that is consistent."""
    index = VideoIndex.of(member.facts, member.words, member.lists)
    if not any(find_gop_table_problems(index, len(member.data))):
        yield from decode_problems(index, member.data)


def find_gop_table_problems(index: VideoIndex, size_bytes: int) -> Iterator[str]:
    """Find inconsistencies in the index of a member with `size_bytes` bytes, without reading it."""
    if not 0 <= index.fps < MAX_FPS:
        yield f"has {index.fps} frames per second"
    if problem := _find_size_problem(index, size_bytes):
        yield problem
        return
    # Lists: each request of a clip checks its table, and for a few GOPs numpy costs five times as much.
    first, offset, size, lead = (each.tolist() for each in (index.first_frame, index.offset, index.size, index.lead))
    lengths = [after - before for before, after in pairwise([*first, index.n_frames])]
    if first[0] != 0 or min(lengths) <= 0:
        yield f"the GOPs' first frames {_short(index.first_frame)} do not ascend from 0 to below {index.n_frames}"
    if min(lead) < 0 or any(map(gt, lead[1:], lengths)):
        yield f"the GOPs have more leading frames {_short(index.lead)} than the GOPs before them have frames"
    if index.anchor_reach is not None:
        yield from _find_reach_problems(index, index.anchor_reach)
    ends = list(map(add, offset, size))
    if index.foreign:
        if ends[-1] > size_bytes or any(map(lt, offset[1:], ends)) or min(size) <= 0:
            yield (
                f"the GOPs {_short(index.offset)} to {_short(np.array(ends))} are not consecutive within {size_bytes} "
                "bytes"
            )
        return
    starts = [index.header_size, *ends[:-1]]
    if offset != starts or min(size) <= 0:
        gop = next(n for n, own in enumerate(offset) if own != starts[n] or size[n] <= 0)
        yield f"GOP {gop} is at bytes {offset[gop]} to {ends[gop]}, but should start at {starts[gop]}"
    if ends[-1] != size_bytes:
        yield f"the GOPs end at byte {ends[-1]}, but the member has {size_bytes} bytes"


def _find_size_problem(index: VideoIndex, size_bytes: int) -> str | None:
    """Find the first problem that leaves the table unreadable: numbers out of range, or lists of unequal length."""
    if index.n_frames < 1 or not (
        MIN_SIDE <= min(index.width, index.height) <= index.width * index.height <= MAX_PIXELS
    ):
        return (
            f"has {index.n_frames} frames of {index.width}x{index.height} pixels; expected at least 1 frame, "
            f"{MIN_SIDE} pixels on each side and {MAX_PIXELS} in all"
        )
    if len(index.first_frame) == 0:
        return "the table of GOPs is empty"
    of_gops = {name: each for name, each in index.lists.items() if name in GOP_LISTS}
    if len({len(each) for each in of_gops.values()}) > 1:
        return f"the columns {', '.join(of_gops)} have different lengths"
    if index.n_frames > size_bytes or not 0 < index.header_size <= (MAX_HEADER_BYTES if index.foreign else size_bytes):
        return f"{index.n_frames} frames and a header of {index.header_size} bytes do not fit into {size_bytes} bytes"
    if index.header is not None and (index.foreign or len(index.header) != index.header_size):
        return f"the manifest has a header of {len(index.header)} bytes, but the member's has {index.header_size}"
    places = [*index.offset.tolist(), *index.size.tolist()]
    if min(places) < 0 or max(places) > size_bytes:
        return f"the GOPs {_short(index.offset)} of {_short(index.size)} bytes do not lie within {size_bytes} bytes"
    if index.packets is not None and not 0 < index.packets.min() <= index.packets.max() <= size_bytes:
        return f"the GOPs have {_short(index.packets)} packets, in {size_bytes} bytes"
    return None


def _find_reach_problems(index: VideoIndex, reach: Int64s) -> Iterator[str]:
    """Check the ends of anchors as far as that is possible without the member."""
    if index.foreign or any(index.lead.tolist()) or any(first % ANCHOR_STRIDE for first in index.first_frame.tolist()):
        yield f"the manifest has {ANCHOR_REACH} for GOPs that are open or do not begin at a multiple of {ANCHOR_STRIDE}"
    anchors, shares = -(-index.n_frames // ANCHOR_STRIDE), reach.tolist()
    if len(shares) != anchors or min(shares) < 1 or max(shares) > 100:
        yield (
            f"{ANCHOR_REACH} has the {len(reach)} values {_short(reach)}; expected {anchors} in 1 to 100, one for "
            f"every {ANCHOR_STRIDE}th of {index.n_frames} frames"
        )


def find_box_problems(index: VideoIndex, data: bytes) -> Iterator[str]:
    """Check that every GOP of a fragmented MP4 starts with a fragment, and the ends of its anchors; other containers
    are not read.
    """
    if index.foreign:
        return
    fragment = [data[offset + 4 : offset + 8] == b"moof" for offset in index.offset.tolist()]
    if data[4:8] == b"ftyp" and any(fragment) and not all(fragment):
        gop = fragment.index(False)
        yield f"GOP {gop} starts at byte {index.offset[gop]}, but no fragment starts there"
        return
    if index.anchor_reach is None:
        return
    spans = zip(index.offset.tolist(), index.size.tolist(), strict=True)
    try:
        track = read_header(data[: index.header_size])
        gops = [read_fragments(memoryview(data)[at : at + size], track) for at, size in spans]
    except Mp4Error as error:
        yield f"has {ANCHOR_REACH}, but is not a fragmented MP4 ({error})"
        return
    if not np.array_equal(index.anchor_reach, measure_anchor_reach(gops, index.size)):
        yield f"{ANCHOR_REACH} in the manifest does not match the ends of the packets of every {ANCHOR_STRIDE}th frame"
    try:
        gop_notes(memoryview(data)[index.header_size :], index.width, index.height)
    except Mp4Error as error:
        yield str(error)


def decode_problems(index: VideoIndex, data: bytes) -> Iterator[str]:
    """Decode the member and compare the number and size of frames, and the keyframe of each GOP, with the index."""
    import av

    from maskstream.shards.media.local_media import MediaError, open_media

    keyframes: set[int] = set()
    shown: list[int | None] = []
    sizes: set[tuple[int, int]] = set()
    try:
        with open_media(data) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            stream.codec_context.options = {"max_pixels": str(most_pixels(index.width, index.height))}
            for packet in container.demux(stream):
                if packet.is_keyframe and packet.pts is not None:
                    keyframes.add(packet.pts)
                for frame in packet.decode():
                    turned = frame.rotation % 180 != 0
                    sizes.add((frame.height, frame.width) if turned else (frame.width, frame.height))
                    shown.append(frame.pts)
                if len(shown) > index.n_frames or len(sizes) > 1:
                    break
    except (av.FFmpegError, MediaError, IndexError, ValueError) as error:
        yield f"cannot be decoded ({error})"
        return
    if len(shown) != index.n_frames:
        more = " or more" if len(shown) > index.n_frames else ""
        yield f"has {len(shown)} frames{more}, not {index.n_frames}"
    elif wrong := [
        frame
        for frame in index.first_frame.tolist()[1 if index.foreign else 0 :]  # an edit list may hide the first keyframe
        if frame >= len(shown) or shown[frame] not in keyframes
    ]:
        yield f"frame {wrong[0]} starts a GOP but is not a keyframe"
    if sizes - {(index.width, index.height)}:
        found = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
        yield f"has frames of {found} pixels, not {index.width}x{index.height}"


def _short(values: np.ndarray) -> str:
    head = ", ".join(map(str, values[:6].tolist()))
    return f"({head}, ...)" if len(values) > 6 else f"({head})"


VIDEO = Kind(
    name="video",
    facts={
        "fps": float,
        "n_frames": int,
        "width": int,
        "height": int,
        "header_size": int,
        "start_s": float,
        **TABLE_FACTS,
    },
    words=("codec", HEADER, ENDING),
    lists=(*GOP_LISTS, ANCHOR_REACH),
    check=find_video_problems,
    decode=find_video_decode_problems,
)
