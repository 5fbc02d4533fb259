"""Decode the clips of a batch with torchcodec's NVDEC to YUV planes, which the device converts to pixels.

The H.264 and HEVC standards define decoding bit by bit, so planes equal PyAV's, and pixels equal the output of workers
with output="yuv". The decoder is therefore not part of a run's identity: machines with and without NVDEC can resume
each other's runs. Requires torchcodec 0.17 or later, whose decoders accept packets and return planes.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.decode.cpu import HALF_CHROMA, compute_colour_numbers

from .batch import PlaneBatch, PlaneClip
from .hardware import DaemonThreads
from .packing import EncodedClip, look_places
from .yuv import convert_planes

FORMATS = ("nv12", "yuv420p", "yuvj420p")
"""FFmpeg's names of 8-bit 4:2:0 formats that NVDEC and CPU decoders return."""


class TorchcodecDecoder:
    """Decodes clips in threads, each with its own decoder, which torchcodec caches.

    Args:
        size: Height and width in pixels.
        threads: Number of clips decoded at once.
    """

    name = "torchcodec"
    most_difference = 1.0  # planes are bit-identical, so only wrong frames differ by more

    def __init__(self, size: int, threads: int) -> None:
        self._size, self._threads = size, DaemonThreads(threads)

    def forget(self) -> None:
        """Nothing is cached."""

    def __call__(
        self, clips: list[EncodedClip], crops: list[list[Crop]], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Return pixels on the device and thumbnail luma on the host; see `BatchDecoder`."""
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        works = [self._threads.submit(partial(decode_planes, clip, device, stream)) for clip in clips]
        decoded = [work.result() for work in works]
        with torch.cuda.stream(stream):
            planes = cropped([*zip(clips, decoded, crops, strict=True)])
            pixels = convert_planes(planes, self._size)
            looks = torch.stack([look_at(clip, luma) for clip, (luma, _) in zip(clips, decoded, strict=True)]).cpu()
        return pixels.reshape(len(clips), -1, *pixels.shape[1:]), looks


def decode_planes(clip: EncodedClip, device: torch.device, stream: torch.cuda.Stream | None) -> tuple[Tensor, Tensor]:
    """Decode luma (F, H, W) and chroma (F, 2, H / 2, W / 2) of the clip's frames on a device, uint8."""
    from torchcodec.decoders import Demuxer

    with torch.cuda.stream(stream):
        demuxer = Demuxer(clip.mp4.tobytes())
        decoder = demuxer.streams[0].make_decoder(device)
        wanted, luma, chroma, shown, last = set(clip.frames.tolist()), [], [], 0, -1.0
        for packet in [*demuxer, None]:
            for frame in decoder.drain() if packet is None else decoder.decode(packet):
                if frame.pts_seconds <= last:
                    raise RuntimeError(f"frames are not in order: {frame.pts_seconds} s after {last} s")
                if shown in wanted:
                    if frame.pixel_format not in FORMATS or (frame.width, frame.height) != clip.size:
                        raise RuntimeError(
                            f"got a frame in {frame.pixel_format} with {frame.width}x{frame.height} pixels, "
                            f"expected {clip.size[0]}x{clip.size[1]}"
                        )
                    luma.append(frame.planes[0].clone())
                    chroma.append(torch.stack(frame.planes[1:]))
                shown, last = shown + 1, frame.pts_seconds
        if len(luma) != len(wanted):
            raise RuntimeError(f"only {len(luma)} of {len(wanted)} frames were returned")
        return torch.stack(luma), torch.stack(chroma)


def cropped(of: list[tuple[EncodedClip, tuple[Tensor, Tensor], list[Crop]]]) -> PlaneBatch:
    """Crop the planes of each view of the clips, in the order of their frames."""
    crops = [crop for *_, own in of for crop in own]
    rows, frames, device = len(crops), len(of[0][0].order), of[0][1][0].device
    height, width = max(crop.height for crop in crops), max(crop.width for crop in crops)
    luma = torch.zeros((rows, frames, height, width), dtype=torch.uint8, device=device)
    chroma = luma.new_zeros((rows, frames, 2, -(-height // 2), -(-width // 2)))
    views: list[PlaneClip] = []
    for clip, (y, uv), own in of:
        order = torch.from_numpy(clip.order).to(device)
        for crop in own:
            (h, w), (down, across) = sides = (crop.height, crop.width), (-(-crop.height // 2), -(-crop.width // 2))
            top, left = crop.y // 2, crop.x // 2
            luma[len(views), :, :h, :w] = y[order, crop.y : crop.y + h, crop.x : crop.x + w]
            chroma[len(views), :, :, :down, :across] = uv[order, :, top : top + down, left : left + across]
            half = (clip.standard, clip.full_range) == HALF_CHROMA
            views.append(PlaneClip(luma=sides[0], chroma=sides[1], flip=crop.flip, half=half))
    colours = np.stack([compute_colour_numbers(clip.standard, clip.full_range) for clip, _, own in of for _ in own])
    own_colours = torch.from_numpy(colours.astype(np.int32)).to(device)
    return PlaneBatch(luma=luma, chroma=chroma, clips=tuple(views), colours=own_colours)


def look_at(clip: EncodedClip, luma: Tensor) -> Tensor:
    """Return the luma thumbnails of a clip's keyframe and frames, as `BatchDecoder` returns them."""
    rows, columns = (torch.from_numpy(places).to(luma.device) for places in look_places(clip.shown))
    seen = luma[:, rows, columns].float()
    if not clip.full_range:
        seen = ((seen - 16) * (255 / 219)).clamp(0, 255)
    return torch.cat([seen[:1], seen[torch.from_numpy(clip.order).to(luma.device)]])
