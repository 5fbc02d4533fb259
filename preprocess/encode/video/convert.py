"""Convert decoded frames for the encoder: progressive, upright, square pixels, 4:2:0, limited range, BT.601.

The sides become multiples of BLOCK: the short side is scaled to one, and the long side is cropped at both ends, so
nothing is squeezed.

The matrix is converted after scaling: FFmpeg's `scale` takes three times as long if it must also convert BT.709, so
`colorspace` does that, on the small frame.
"""

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

from maskstream.preprocess.encode.limits import check_frame_size
from maskstream.preprocess.source import RejectError

from .profile import BLOCK
from .source import compute_display_size, orientation

BT601 = 6
"""The number of smpte170m in ISO 23091-2, for matrix, primaries and transfer."""

_MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
_COLORSPACES = {"bt709": "bt709", "fcc": "fcc", "smpte240m": "smpte240m", "bt2020": "bt2020ncl"}
"""The matrices as FFmpeg's filter `colorspace` names them."""
_YUV = ("yuv", "nv", "p0")
"""How the names of pixel formats begin that have a matrix."""
_SCALER = "flags=bicubic+accurate_rnd+full_chroma_int+bitexact"


class Fit(NamedTuple):
    """The size to which a video is scaled, and the size of the central part that is stored, (width, height) each."""

    scaled: tuple[int, int]
    stored: tuple[int, int]

    @property
    def crop(self) -> list[tuple[str, str]]:
        """The filter that cuts the middle out; none if all is stored."""
        if self.scaled == self.stored:
            return []
        x, y = ((all_ - kept) // 4 * 2 for all_, kept in zip(self.scaled, self.stored, strict=True))
        return [("crop", f"{self.stored[0]}:{self.stored[1]}:{x}:{y}")]


def fitted(width: int, height: int, short_side: int) -> Fit:
    """Return how to fit a video. The short side becomes the largest multiple of BLOCK that is at most `short_side` and
    the short side itself; the other side keeps the aspect ratio, to two pixels, and is cropped to a multiple of BLOCK.

    Decoders work in blocks of 16 x 16 pixels: at other sizes DALI's cache never finds its open decoders. Raises
    RejectError if a side is shorter than a block.
    """
    short = min(width, height)
    scaled_short = min(short_side, short) // BLOCK * BLOCK
    scale = Fraction(scaled_short, short)
    w, h = (min(round(side * scale / 2) * 2, side // 2 * 2) for side in (width, height))
    if min(w, h) < BLOCK:
        raise RejectError("decode", f"has {width}x{height} pixels; each side needs at least {BLOCK} pixels")
    return Fit((w, h), (w // BLOCK * BLOCK, h // BLOCK * BLOCK))


class Converter:
    """Converts frames of any size and pixel format to yuv420p of one size, limited range, BT.601."""

    def __init__(self, short_side: int, pixel_aspect: Fraction | None) -> None:
        self._short_side = short_side
        self._pixel_aspect = pixel_aspect
        self._graphs: dict[tuple[object, ...], Graph | None] = {}
        self.first: VideoFrame | None = None
        """The first input frame; it determines the output size, to which all later frames are scaled."""
        self.fit = Fit((0, 0), (0, 0))
        """How the first frame is fitted; zeros before it."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the output; (0, 0) before the first frame."""
        return self.fit.stored

    @property
    def is_uniform(self) -> bool:
        """Whether all frames until now had one size, format and orientation."""
        return len(self._graphs) < 2

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        """Convert one frame; a frame that needs no conversion is returned unchanged."""
        if self.first is None:
            self.first = frame
            shown = compute_display_size(frame, self._pixel_aspect)
            check_frame_size(*shown)  # pixels that are very wide or tall enlarge it
            self.fit = fitted(*shown, self._short_side)
        key = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, orientation(frame))
        if key not in self._graphs:
            steps = list_conversion_filters(frame, self.fit)
            self._graphs[key] = _build_chain(frame, steps) if steps else None
        graph = self._graphs[key]
        if graph is None:
            return frame
        graph.vpush(frame)
        return graph.vpull()


def is_converted(frame: VideoFrame, size: tuple[int, int]) -> bool:
    """True if frames like this one already have the right size and format, so that they only need cropping."""
    is_same = frame.format.name == "yuv420p" and (frame.width, frame.height) == size
    return is_same and _name_matrix(frame) == "bt601" and not _is_full(frame) and not any(orientation(frame))


def _name_matrix(frame: VideoFrame) -> str:
    return _MATRICES.get(frame.colorspace, "bt709" if min(frame.width, frame.height) >= 720 else "bt601")


def _is_full(frame: VideoFrame) -> bool:
    return frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")


def list_conversion_filters(frame: VideoFrame, fit: Fit) -> list[tuple[str, str]]:
    """The filters, as (name, arguments), that convert frames like this one; none if they would only copy."""
    if is_converted(frame, fit.scaled):
        return fit.crop
    transpose, flip_x, flip_y = orientation(frame)
    full, matrix = _is_full(frame), _name_matrix(frame)
    width, height = fit.scaled[::-1] if transpose else fit.scaled
    # `scale` that also converts the matrix takes three times as long as `colorspace` after it, on the small frame.
    # Given both matrices, it leaves the numbers as they are; given none, it converts from BT.601.
    apart = matrix in _COLORSPACES and frame.format.name.startswith(_YUV)
    scale = f"{width}:{height}:in_range={'pc' if full else 'tv'}:out_range=tv:in_color_matrix={matrix}"
    steps = [("scale", f"{scale}:out_color_matrix={matrix if apart else 'bt601'}:{_SCALER}")]
    if apart:
        steps += [("format", "yuv420p"), ("colorspace", _format_matrix_arguments(_COLORSPACES[matrix]))]
    steps += [("setsar", "1"), ("format", "yuv420p")]
    steps += [("transpose", "dir=cclock_flip")] * transpose + [("hflip", "")] * flip_x + [("vflip", "")] * flip_y
    return steps + fit.crop


def _format_matrix_arguments(matrix: str) -> str:
    """Arguments of `colorspace` that convert the matrix to BT.601 and leave primaries and transfer unchanged."""
    same = "".join(f":i{of}=bt709:{of}=bt709" for of in ("primaries", "trc"))
    return f"ispace={matrix}:space=smpte170m{same}:irange=tv:range=tv:format=yuv420p"


def deinterlace_frames(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """Yield the frames, with interlaced ones made progressive (bwdif, one output frame per input frame)."""
    graph: Graph | None = None
    stamps: deque[tuple[int | None, Fraction | None]] = deque()
    for frame in frames:
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        graph = graph or _build_chain(frame, [("bwdif", "mode=send_frame:deint=interlaced")])
        stamps.append((frame.pts, frame.time_base))
        graph.vpush(frame)
        yield from _pull_frames(graph, stamps)
    if graph is not None:
        graph.vpush(None)
        yield from _pull_frames(graph, stamps)


def _pull_frames(graph: Graph, stamps: deque[tuple[int | None, Fraction | None]]) -> Iterator[VideoFrame]:
    while stamps:
        try:
            frame = graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return
        frame.pts, time_base = stamps.popleft()
        if time_base is not None:
            frame.time_base = time_base
        yield frame


def _build_chain(frame: VideoFrame, steps: list[tuple[str, str]]) -> Graph:
    graph = Graph()
    graph.threads = 1
    source = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/1000:pixel_aspect=1/1"
    nodes = [graph.add("buffer", source)]
    nodes += [graph.add(name, arguments) for name, arguments in steps]
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    return graph
