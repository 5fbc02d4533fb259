"""The compared readers: each turns the same clip into the same pixels, in its fastest form with one thread.

Output "uint8" is (T, 224, 224, 3), RGB; "float" is float32, channels first, scaled to [0, 1] and normalised by
ImageNet's mean and standard deviation.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from libraries import why_missing
from torch import Tensor

from maskstream.pipelines.augment import Crop
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD

UInt8Array = npt.NDArray[np.uint8]
HALF = Fraction(1, 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """What every reader is asked for: frames `numbers` (int64, (T,)) of a video, `crop` of them at size x size pixels.

    `file` is the video as a plain file, `key` its name in the shards, (`index`, `epoch`) what the clip is called there.
    """

    file: Path
    numbers: npt.NDArray[np.int64]
    fps: float
    crop: Crop
    size: int
    key: str
    index: int
    epoch: int

    @property
    def stride(self) -> int:
        return int(self.numbers[1] - self.numbers[0])

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the crop."""
        return self.crop.x, self.crop.y, self.crop.x + self.crop.width, self.crop.y + self.crop.height


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """A name, the output it gives, and how it reads clips: `run` reads them all and returns the pixels of the last.

    `divisible` is False for a reader of whole epochs, `comparable` where what it returns are not the clip's pixels,
    `all_cores` is True where the reader has as many threads or processes as there are cores.
    """

    name: str
    output: str
    run: Callable[[Sequence[Clip]], Any]
    divisible: bool = True
    comparable: bool = True
    all_cores: bool = False


def each(read: Callable[[Clip], Any]) -> Callable[[Sequence[Clip]], Any]:
    """Reads the clips one after the other and keeps none but the last."""

    def run(clips: Sequence[Clip]) -> Any:
        pixels = None
        for clip in clips:
            pixels = read(clip)
        return pixels

    return run


def peers(variant: str) -> tuple[list[Reader], list[str]]:
    """The other readers of plain files for a variant, and for each that cannot be used the reason.

    `copy` holds the packets of `found`, so only SPDL reads both.
    """
    if variant == "copy":
        wanted = [(spdl, "uint8")]
    elif variant == "fps":
        wanted = [(spdl, "uint8"), (decord_v2, "uint8")]
    else:
        wanted = [(spdl, "uint8"), (spdl, "float"), (torchcodec, "uint8"), (torchcodec, "float")]
        wanted += [(opencv, "uint8"), (opencv, "float"), (decord_v2, "uint8"), (decord_official, "float")]
        wanted += [(torchvision, "uint8")]
    if variant == "train":
        wanted += [(spdl_noref, "uint8"), (spdl_noref, "float")]
    readers, missing = [], []
    for make, output in wanted:
        try:
            readers.append(make(output))
        except (ImportError, RuntimeError, OSError) as error:
            missing.append(why_missing(make.__name__, error))
    return readers, missing


def as_float(video: UInt8Array) -> Tensor:
    """uint8 (T, H, W, 3) to normalised float32 (T, 3, H, W)."""
    x = torch.from_numpy(video).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return x.mul_(1 / (255.0 * std)).sub_(mean / std)


def as_uint8(pixels: UInt8Array | Tensor) -> UInt8Array:
    """What a reader gave, as uint8 (T, H, W, 3)."""
    if isinstance(pixels, np.ndarray):
        return pixels
    frames = pixels if pixels.shape[1] == 3 else pixels.transpose(0, 1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return channels_last((frames * std + mean).mul(255.0).round().to(torch.uint8))


def decord_official(output: str) -> Reader:
    """decord and PIL, step by step as the loaders of VideoMAE and MGMAE do it; its output is (3, T, H, W)."""
    import decord
    from PIL import Image

    def read(clip: Clip) -> Tensor:
        video = decord.VideoReader(str(clip.file), num_threads=1, ctx=decord.cpu(0))
        frames = video.get_batch(clip.numbers.tolist()).asnumpy()
        images = [Image.fromarray(frame).convert("RGB") for frame in frames]
        images = [image.crop(clip.box) for image in images]
        images = [image.resize((clip.size, clip.size), Image.Resampling.BILINEAR) for image in images]
        stacked = np.concatenate([np.asarray(image) for image in images], axis=2)
        x = torch.from_numpy(stacked).permute(2, 0, 1).contiguous().float().div(255.0)
        for plane, mean, std in zip(x, IMAGENET_MEAN * len(images), IMAGENET_STD * len(images), strict=True):
            plane.sub_(mean).div_(std)
        return x.view(len(images), 3, clip.size, clip.size).transpose(0, 1)

    return Reader(name="decord-official", output=output, run=each(read))


def decord_v2(output: str) -> Reader:
    """decord, then torchvision v2 on uint8 tensors."""
    import decord
    from torchvision.transforms.v2 import functional as F

    def read(clip: Clip) -> UInt8Array:
        video = decord.VideoReader(str(clip.file), num_threads=1, ctx=decord.cpu(0))
        frames = torch.from_numpy(video.get_batch(clip.numbers.tolist()).asnumpy()).permute(0, 3, 1, 2)
        return channels_last(_resized(F, frames, clip))

    return Reader(name="decord", output=output, run=each(read))


def torchcodec(output: str) -> Reader:
    """torchcodec (one FFmpeg thread, no scan of the file), then torchvision v2."""
    decoders = importlib.import_module("torchcodec.decoders")
    from torchvision.transforms.v2 import functional as F

    def read(clip: Clip) -> UInt8Array | Tensor:
        decoder = decoders.VideoDecoder(str(clip.file), num_ffmpeg_threads=1, seek_mode="approximate")
        frames = decoder.get_frames_at(clip.numbers.tolist()).data
        resized = _resized(F, frames, clip)
        if output == "uint8":
            return channels_last(resized)
        scaled = F.to_dtype(resized.contiguous(), torch.float32, scale=True)
        normalised: Tensor = F.normalize(scaled, list(IMAGENET_MEAN), list(IMAGENET_STD))
        return normalised

    return Reader(name="torchcodec", output=output, run=each(read))


def torchvision(output: str) -> Reader:
    """torchvision's own video reader, in versions that have one."""
    io = importlib.import_module("torchvision.io")
    if not hasattr(io, "read_video"):
        raise RuntimeError("this version of torchvision has no video reader; torchcodec replaces it")
    from torchvision.transforms.v2 import functional as F

    def read(clip: Clip) -> UInt8Array:
        begin, end = (float(clip.numbers[i] / clip.fps) for i in (0, -1))
        frames, _, _ = io.read_video(str(clip.file), begin, end, pts_unit="sec", output_format="TCHW")
        return channels_last(_resized(F, frames[:: clip.stride], clip))

    return Reader(name="torchvision", output=output, run=each(read))


def _resized(functional: Any, frames: Tensor, clip: Clip) -> Tensor:
    crop, size = clip.crop, [clip.size, clip.size]
    resized: Tensor = functional.resized_crop(frames, crop.y, crop.x, crop.height, crop.width, size, antialias=True)
    return resized


def channels_last(frames: Tensor) -> UInt8Array:
    video: UInt8Array = frames.permute(0, 2, 3, 1).contiguous().numpy()
    return video


def opencv(output: str) -> Reader:
    """cv2.VideoCapture with one thread: seek, grab what lies between, convert and resize what is wanted."""
    options = [cv2.CAP_PROP_N_THREADS, 1]

    def read(clip: Clip) -> UInt8Array | Tensor:
        capture = cv2.VideoCapture(str(clip.file), cv2.CAP_FFMPEG, options)
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(clip.numbers[0]))
        out = np.empty((len(clip.numbers), clip.size, clip.size, 3), dtype=np.uint8)
        left, top, right, bottom = clip.box
        for t in range(len(clip.numbers)):
            for _ in range(clip.stride if t else 1):
                capture.grab()
            _, bgr = capture.retrieve()
            small = cv2.resize(bgr[top:bottom, left:right], (clip.size, clip.size), interpolation=cv2.INTER_LINEAR)
            cv2.cvtColor(small, cv2.COLOR_BGR2RGB, dst=out[t])
        capture.release()
        return out if output == "uint8" else as_float(out)

    return Reader(name="opencv", output=output, run=each(read))


def spdl(output: str) -> Reader:
    """SPDL: the packets of a window of time, one decoder thread, a filter graph that drops, crops and scales frames."""
    return _spdl("spdl", output, {})


def spdl_noref(output: str) -> Reader:
    """SPDL with the decoder told to skip frames that nothing refers to; right only for clips of anchor frames."""
    return _spdl("spdl-noref", output, {"skip_frame": "noref"})


def _spdl(name: str, output: str, options: dict[str, str]) -> Reader:
    io = importlib.import_module("spdl.io")
    config = io.decode_config(decoder_options={"threads": "1", **options})

    def read(clip: Clip) -> UInt8Array | Tensor:
        rate = Fraction(clip.fps).limit_denominator(1001)
        window = ((int(clip.numbers[0]) - HALF) / rate, (int(clip.numbers[-1]) + HALF) / rate)
        packets = io.demux_video(str(clip.file), timestamp=window)
        frames = io.decode_packets(packets, filter_desc=_graph(clip, rate), decode_config=config)
        video: UInt8Array = io.to_numpy(io.convert_frames(frames))
        return video if output == "uint8" else as_float(video)

    return Reader(name=name, output=output, run=each(read))


def _graph(clip: Clip, rate: Fraction) -> str:
    crop = clip.crop
    wanted = f"not(mod(round(t*{rate.numerator}/{rate.denominator})-{clip.numbers[0]}\\,{clip.stride}))"
    return (
        f"select='{wanted}',crop={crop.width}:{crop.height}:{crop.x}:{crop.y}:exact=1,"
        f"scale={clip.size}:{clip.size}:flags=bilinear:threads=1,format=rgb24"
    )
