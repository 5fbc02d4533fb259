"""What decides the bytes that a job writes, besides its settings: the libraries and the processor of a process.

`job.json` has it, and every task compares its own process: a node with other wheels would write other bytes and say
nothing.
"""

from __future__ import annotations

import platform
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Generic

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from maskstream.preprocess.executors.base import RecordT, Report, TaskT, Work
from maskstream.shards.config import differences
from maskstream.shards.errors import ResumeError

_DICOM = ("pillow", "pydicom", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "python-gdcm")
_PACKAGES: dict[str, tuple[str, ...]] = {
    "video": ("numpy", "opencv-python-headless"),
    "audio": ("numpy", "soxr", "torch"),
    "audiovisual": ("numpy", "opencv-python-headless", "soxr", "torch"),
    "image": ("numpy", "opencv-python-headless", *_DICOM),
    "image-text": ("numpy", "opencv-python-headless", "pycocotools", "tokenizers", *_DICOM),
    "points": ("laspy", "numpy", "trimesh"),
    "mesh": ("h5py", "numpy", "scikit-fem", "scipy", "trimesh"),
    "pose": ("numpy",),
    "text": ("numpy", "pyarrow", "tokenizers"),
    "trajectory": ("miniworld", "numpy", "opencv-python-headless", "vizdoom"),
}
"""The packages, besides PyAV, that decide the bytes of a modality."""
_ALL = tuple(sorted({name for names in _PACKAGES.values() for name in names}))
_NONE = "none"


def libraries(modality: str) -> dict[str, str]:
    """What decides the bytes of a split of this modality, by name: the versions of FFmpeg's libraries, x264, PyAV and
    other packages, and the kind of processor. A modality of your own depends on all packages.
    """
    names = ("av", *_PACKAGES.get(modality, _ALL))
    ffmpeg = {name: ".".join(map(str, number)) for name, number in sorted(av.library_versions.items())}
    return {**ffmpeg, "x264": _x264(), **{name: _version(name) for name in names}, "machine": platform.machine()}


@cache
def _x264() -> str:
    """How x264 names itself in what it encodes; "none" if FFmpeg has no x264."""
    try:
        context = av.CodecContext.create("libx264", "w")
    except (av.FFmpegError, ValueError):
        return _NONE
    assert isinstance(context, VideoCodecContext)
    context.width = context.height = 16
    context.pix_fmt, context.time_base, context.thread_count = "yuv420p", Fraction(1, 25), 1
    frame = VideoFrame(16, 16, "yuv420p")
    frame.pts = 0
    encoded = b"".join(bytes(packet) for packet in (*context.encode(frame), *context.encode(None)))
    found = re.search(rb"x264 - ([^-]*[^- ]) -", encoded)
    return found[1].decode("ascii", "replace") if found else "unknown"


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return _NONE


@dataclass(frozen=True, slots=True)
class InEnvironment(Generic[TaskT, RecordT]):
    """The work of a job of this modality, in processes that have the job's libraries and in no others.

    A process elsewhere may have other versions, which would write other bytes and say nothing.
    """

    work: Work[TaskT, RecordT]
    modality: str
    wanted: Mapping[str, str]

    def __call__(self, task: TaskT, report: Report, /) -> RecordT:
        """Run the task. Raises ResumeError if this process has other libraries than the job."""
        if changes := "; ".join(differences(self.wanted, libraries(self.modality))):
            raise ResumeError(
                f"{task.name} would have other bytes if {socket.gethostname()} wrote it, whose libraries are not those "
                f"of the job ({changes}); install the same versions there, and run the same command again"
            )
        return self.work(task, report)
