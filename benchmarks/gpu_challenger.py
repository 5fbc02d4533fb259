"""The step of the acceptance about PyNvVideoCodec, the other way to NVDEC from Python: should it replace DALI?

**No card has run this.** It calls only what NVIDIA's documentation of PyNvVideoCodec 2 describes: a `SimpleDecoder` a
thread, which `reconfigure_decoder` gives the next file, and frames by number as RGB on the device. That reads files, so
the clips, packed as for DALI, are written to files beforehand.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import torch
from gpu_loaders import DATA, Figures, own_frame_nearest, said, split_of
from gpu_videos import Kind
from torch import Tensor
from torch.nn.functional import interpolate

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.modalities.rows import RowSampler
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.packing import EncodedClip, PackedBatch, PackedRowMaker
from maskstream.pipelines.modalities.video.rows import ClipPlan
from maskstream.pipelines.stream.produce import batch_of
from maskstream.pipelines.stream.sampler import Wanted

CLIPS, SECONDS = 32, 3.0
REPLACES = 1.5
"""From so many times DALI's clips a second on PyNvVideoCodec is to decode in its place."""


def challenger(device: torch.device) -> tuple[Figures, list[str]]:
    """The same clips by DALI and by PyNvVideoCodec, decoded and resized on the card, without reading and packing."""
    try:
        codec = import_module("PyNvVideoCodec")
    except ModuleNotFoundError:
        return {}, ["PyNvVideoCodec is not installed; pip install 'PyNvVideoCodec>=2.2'"]
    except (ImportError, OSError, RuntimeError) as error:
        return {}, [f"PyNvVideoCodec cannot be loaded: {said(error)}"]
    from maskstream.pipelines.modalities.video.dali import DaliFinish

    figures: Figures = {}
    with split_of(Kind(), videos=CLIPS) as folder:
        packed, right, sampler = packed_clips(folder)
        files = [Clip.written(folder / f"{n}.mp4", *each) for n, each in enumerate(clips_of(packed))]
        finish = DaliFinish(sampler, DATA.clip, 8)
        finish(packed, device)
        figures["dali"] = round(clips_per_s(lambda: finish(packed, device).video), 1)
        if finish.on_cpu:
            return figures, [f"DALI did not decode all clips, so there is nothing to compare: {dict(finish.on_cpu)}"]
        try:
            for threads in (1, 4, 8):
                with ThreadPoolExecutor(threads) as pool:
                    own = Decoders(codec, device, DATA.clip.size)
                    found = torch.stack(list(pool.map(own.decoded, files)))
                    rate = clips_per_s(lambda pool=pool, own=own: torch.stack(list(pool.map(own.decoded, files))))
                figures[f"PyNvVideoCodec, {threads} threads"] = round(rate, 1)
        except Exception as error:  # its own kinds of exceptions have no documented base
            return figures, [f"PyNvVideoCodec failed: {said(error)}"]
    difference = (found.float().cpu() - right.float()).abs().mean().item()
    figures["mean_difference"] = round(difference, 3)
    wrong = [] if difference < 3 else [f"its frames differ by {difference:.2f} levels from the CPU's"]
    wrong += [] if own_frame_nearest(found.cpu().float(), right.float()) else ["a frame is nearer to another"]
    times = max(rate for name, rate in figures.items() if name.startswith("PyNv")) / figures["dali"]
    figures["times_dali"] = round(times, 2)
    if times >= REPLACES:
        wrong.append(f"PyNvVideoCodec decodes {times:.2f} times DALI's clips; from {REPLACES} on it is to replace DALI")
    return figures, wrong


def packed_clips(folder: Path, most: int = CLIPS) -> tuple[PackedBatch, Tensor, RowSampler[ClipPlan, VideoBatch]]:
    """The first clips of a split, packed for NVDEC, and uint8 (B, T, H, W, 3), as the CPU decodes them; by what."""
    split = Split.open(folder, "video", device="cpu", threads=1)
    data = replace(DATA, mask=None, flow="none").resolved(split)
    sampler = data.sampler(split)
    packing = RowSampler(
        rows=PackedRowMaker(clips=data.rows(split), device="cuda"),
        manifest=split.manifest,
        fields=sampler.fields,
        seed=split.seed,
        views=data.views,
    )
    wanted = [Wanted(index=row, epoch=0) for row in range(min(most, len(split.manifest)))]
    return batch_of(packing, wanted), batch_of(sampler, wanted).video, sampler


def clips_of(packed: PackedBatch) -> list[tuple[EncodedClip, Crop]]:
    """The encoded clips of a packed batch and their crops; ValueError for one that was decoded on the CPU."""
    found = []
    for key, clip, crops in zip(packed.key, packed.clips, packed.crops, strict=True):
        if not isinstance(clip, EncodedClip):
            raise ValueError(f"{key} cannot be packed: {clip.reason}")
        found.append((clip, crops[0]))
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A clip as an ordinary MP4: its file, the numbers of its frames in it, its size in pixels and its crop."""

    path: str
    frames: list[int]
    size: tuple[int, int]
    crop: Crop

    @classmethod
    def written(cls, path: Path, clip: EncodedClip, crop: Crop) -> Clip:
        """Writes the packets of an encoded clip, which has one fragment, into a file with a table of samples."""
        with av.open(io.BytesIO(clip.mp4.tobytes())) as source, av.open(str(path), "w") as out:
            (stream,) = source.streams.video
            to = out.add_stream_from_template(stream)
            for packet in source.demux(stream):
                if packet.size:
                    packet.time_base = Fraction(1, 30)  # one frame a tick
                    packet.stream = to
                    out.mux(packet)
        frames = clip.frames[clip.order].tolist()
        return cls(path=str(path), frames=frames, size=clip.size, crop=crop)


class Decoders(threading.local):
    """The decoder and the stream of each thread."""

    def __init__(self, codec: ModuleType, device: torch.device, size: int) -> None:
        self._codec, self._device, self._size = codec, device, size
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._open: Any = None

    def decoded(self, clip: Clip) -> Tensor:
        """The crop of a clip, uint8 (T, size, size, 3) on the device."""
        with torch.cuda.stream(self._stream):
            different = sorted(set(clip.frames))
            frames = self._at(clip).get_batch_frames_by_index(different)
            rgb = torch.stack([torch.from_dlpack(frame) for frame in frames])
            found = cropped(rgb, clip.crop, self._size)[[different.index(number) for number in clip.frames]]
        if self._stream is not None:
            self._stream.synchronize()
        return found

    def _at(self, clip: Clip) -> Any:
        if self._open is None:
            self._open = self._codec.SimpleDecoder(
                clip.path,
                gpu_id=self._device.index or 0,
                cuda_stream=0 if self._stream is None else self._stream.cuda_stream,
                use_device_memory=True,
                max_width=clip.size[0],
                max_height=clip.size[1],
                output_color_type=self._codec.OutputColorType.RGB,
            )
        else:
            self._open.reconfigure_decoder(clip.path)
        return self._open


def cropped(frames: Tensor, crop: Crop, size: int) -> Tensor:
    """The crop of RGB frames uint8 (T, H, W, 3), resized: uint8 (T, size, size, 3)."""
    cut = frames[:, crop.y : crop.y + crop.height, crop.x : crop.x + crop.width].movedim(3, 1).float()
    resized = interpolate(cut, (size, size), mode="bilinear").round().clamp(0, 255).byte()
    return (resized.flip(3) if crop.flip else resized).movedim(1, 3)


def clips_per_s(work: Callable[[], Tensor], for_s: float = SECONDS) -> float:
    """Clips a second of `work`, which makes a batch."""
    start, seen = time.perf_counter(), 0
    while time.perf_counter() - start < for_s:
        seen += len(work())
    torch.cuda.synchronize()
    return seen / (time.perf_counter() - start)
