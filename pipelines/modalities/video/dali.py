"""Decode and resize whole batches with NVIDIA DALI: with NVDEC on a CUDA device, VP9 on the CPU.

The draws of clips, crops and masks are those of the CPU path (rows.py), and so are the decoded packets, which
`PackedRowMaker` packs for DALI (packing.py). Clips of other formats are decoded on the CPU and put into the batch.

Pixels agree with the CPU path up to the decoders' colour conversion (1 to 2 levels on average).

One batch is in flight. DALI frees the buffers of a clip's decoder without waiting for their last copies (DALI 2.4, read
in its source), which a second batch could overwrite.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Thread
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import nvidia.dali
import nvidia.dali.fn
import nvidia.dali.plugin.pytorch
import torch
from torch import Tensor

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.decode.cpu import yuv_to_rgb
from maskstream.pipelines.modalities.rows import RowSampler
from maskstream.pipelines.stream.sampler import BadRowsError, Wanted
from maskstream.pipelines.stream.stats import Stats
from maskstream.pipelines.stream.topology import compute_alone, cores_of_rank
from maskstream.shards.errors import SampleError

from .batch import VideoBatch
from .clip import VideoClip
from .packing import LOOK, EncodedClip, PackedBatch, Refusal
from .rows import ClipPlan

dali: Any = nvidia.dali
"""Typed as Any, because DALI is only partly annotated."""

Mode = Literal["gpu", "cpu"]


def clip_pipeline(
    batch_size: int, views: int, size: int, threads: int, device: torch.device, *, encoded: bool = True
) -> Any:
    """The graph of `clip_graph` on a device, built."""
    mode: Mode = "gpu" if device.type == "cuda" else "cpu"
    device_id = device.index if mode == "gpu" else None
    pipeline = clip_graph(batch_size, views, size, threads, mode, device_id, encoded=encoded)
    pipeline.build()
    return pipeline


def clip_graph(
    batch_size: int, views: int, size: int, threads: int, mode: Mode, device_id: int | None, *, encoded: bool = True
) -> Any:
    """The DALI pipeline from clips to pixels, not built yet. Its inputs are lists with one array per sample.

    video: an MP4, uint8 (bytes,); with `encoded=False`, decoded frames, uint8 (F, height, width, 3), without the input
    frames. frames: as in `EncodedClip`. order: int32 (1 + T,), 0 for the keyframe, and `EncodedClip.order`. regions:
    float32 (views + 1, 6), see `region`, the last being the whole picture. colours: float32 (3, 4), see
    `colours_after`. The outputs are uint8 (views, T, size, size, 3), and looks, uint8 (1 + T, LOOK, LOOK, 3): pixels of
    the keyframe and of each frame. Resizing is linear with pixel centres at half; a crop of more than twice `size` is
    first resized to twice `size` with antialiasing, and the second step then averages pairs. Without a `device_id` the
    graph of mode "gpu" can be serialised, and not built.
    """
    fn, types = dali.fn, dali.types
    pipeline = dali.Pipeline(batch_size=batch_size, num_threads=threads, device_id=device_id, prefetch_queue_depth=1)
    with pipeline:
        layout, ndim = (None, 1) if encoded else ("FHWC", 4)
        video = fn.external_source(name="video", dtype=types.UINT8, ndim=ndim, layout=layout)
        order = fn.external_source(name="order", dtype=types.INT32, ndim=1)
        regions = fn.external_source(name="regions", dtype=types.FLOAT, ndim=2)
        colours = fn.external_source(name="colours", dtype=types.FLOAT, ndim=2)
        if encoded:
            frames = fn.external_source(name="frames", dtype=types.INT32, ndim=1)
            decoder = "mixed" if mode == "gpu" else "cpu"
            pixels = fn.decoders.video(video, device=decoder, frames=frames, pad_mode="none", affine=False)
        else:
            pixels = video.gpu() if mode == "gpu" else video
        matrix, shift = colours[:, 0:3], colours[:, 3]
        clips = []
        for view in range(views):
            r = regions[view]
            near = fn.resize(pixels, roi_start=r[0:2], roi_end=r[2:4], size=r[4:6], antialias=True)
            small = fn.resize(near, size=[size, size], antialias=False)
            right = fn.coord_transform(small, M=matrix, T=shift, dtype=types.UINT8)
            clips.append(fn.sequence_rearrange(fn.reshape(right, layout="FHWC"), new_order=order[1:]))
        whole, nearest = regions[views], types.INTERP_NN
        looks = fn.resize(pixels, roi_start=whole[0:2], roi_end=whole[2:4], size=whole[4:6], interp_type=nearest)
        pipeline.set_outputs(fn.stack(*clips), fn.sequence_rearrange(looks, new_order=order))
    return pipeline


def region(crop: Crop, size: int) -> npt.NDArray[np.float32]:
    """Top, left, bottom, right of the crop (left, right swapped for a flip); height, width of the first resize."""
    left, right = crop.x, crop.x + crop.width
    if crop.flip:
        left, right = right, left
    near = (min(crop.height, 2 * size), min(crop.width, 2 * size))
    return np.array([crop.y, left, crop.y + crop.height, right, *near], dtype=np.float32)


def look_region(shown: tuple[int, int]) -> npt.NDArray[np.float32]:
    """The whole picture of a width and height, to LOOK x LOOK pixels; see `region`."""
    return np.array([0, 0, shown[1], shown[0], LOOK, LOOK], dtype=np.float32)


def colours_after(standard: str, full_range: bool) -> npt.NDArray[np.float32]:
    """What turns RGB that was converted as BT.601 into that of `standard`, float32 (3, 4): a matrix and a shift.

    DALI converts as BT.601, with the range that the video has.
    """
    if standard == "bt601":
        return np.eye(3, 4, dtype=np.float32)
    right, made = yuv_to_rgb(standard, full_range), yuv_to_rgb("bt601", full_range)
    matrix = right[:, :3] @ np.linalg.inv(made[:, :3])
    shift = right[:, 3] - matrix @ made[:, 3]
    return np.concatenate([matrix, shift[:, None]], axis=1).astype(np.float32)


dali_torch: Any = nvidia.dali.plugin.pytorch
"""Typed as Any, because DALI is only partly annotated."""

log = logging.getLogger(__name__)

MOST_FAULTS, WITHIN = 3, 100
"""After so many faults of DALI within so many batches, the rest of the run is decoded on the CPU."""
LIMIT_S = 60.0
"""A batch that takes DALI longer will never come."""
MOST_DIFFERENCE = 8.0
"""Levels, the mean over a frame: decoders differ by less than 3 (conversion, chroma siting), other pictures by more."""
LARGE_STEP = 24.0
"""Levels, the mean over the looks of two frames in turn: a scene cut, or a frame that is none of the clip's."""
EVERY = 16
"""Of every so many batches, a clip is decoded on the CPU and compared, whatever it looks like."""
_LUMA = torch.tensor([0.299, 0.587, 0.114])
"""What BT.601's RGB, to which DALI converts, has of luma."""


class DaliFinish:
    """Decodes batches with a DALI pipeline, which is built for the first batch and rebuilt for a larger one.

    If DALI fails, it fails for the whole batch. Its clips are then decoded on the CPU, and those that fail there are
    bad rows. A decoder can also hand out memory that it did not write, without a word. So each clip's keyframe is
    compared with that of the worker, and each frame with the one before, at LOOK x LOOK pixels. A clip that differs, or
    has a large step, is decoded on the CPU and compared as a whole; so is a clip of every `EVERY`th batch. A failure
    that no bad clip explains, and a clip that differs, are faults of DALI; after `MOST_FAULTS` of them, or a batch that
    takes `LIMIT_S` seconds, all is decoded on the CPU.

    sampler: makes clips on the CPU, without fields. threads: of DALI. on_cpu: the clips that were decoded on the CPU,
    by reason.
    """

    def __init__(self, sampler: RowSampler[ClipPlan, VideoBatch], clip: VideoClip, threads: int) -> None:
        self._sampler, self._clip, self._threads = sampler, clip, threads
        self._pipeline: Any = None
        self._stream: Any = None
        self._batches, self._faults, self._given_up = 0, list[int](), False
        self.on_cpu: Counter[str] = Counter()

    def __call__(self, batch: PackedBatch, device: torch.device) -> VideoBatch:
        """The batch with its pixels on `device`."""
        return VideoBatch(
            video=self._video(batch, device),
            mask=batch.mask,
            flow=None,
            label=batch.label,
            key=batch.key,
            pts_s=batch.pts_s,
            draws=batch.draws,
            fields=batch.fields,
            weight=batch.weight,
        )

    def _video(self, batch: PackedBatch, device: torch.device) -> Tensor:
        encoded = {row: clip for row, clip in enumerate(batch.clips) if isinstance(clip, EncodedClip)}
        refusals = {row: clip for row, clip in enumerate(batch.clips) if isinstance(clip, Refusal)}
        self._note([clip.reason for clip in refusals.values()])
        if not encoded:
            return batch.pixels.to(device)
        decoded = self._decoded_or_on_cpu(encoded, batch, device)
        if not refusals:
            return decoded.flatten(0, 1)
        pixels = self._by_sample(batch.pixels.to(device))
        places = np.argsort([*encoded, *refusals])
        return torch.cat([decoded, pixels])[torch.from_numpy(places).to(device, non_blocking=True)].flatten(0, 1)

    def _decoded_or_on_cpu(self, clips: dict[int, EncodedClip], batch: PackedBatch, device: torch.device) -> Tensor:
        """The pixels of the clips by row, uint8 (rows, views, T, size, size, 3); raises BadRowsError."""
        if self._given_up:
            self._note(["after faults of DALI"] * len(clips))
            return self._on_cpu({row: batch.wanted[row] for row in clips}).to(device)
        self._batches += 1
        crops = [batch.crops[row] for row in clips]
        try:
            video, looks = _within(LIMIT_S, partial(self._decoded, list(clips.values()), crops, device))
        except Exception as error:  # whatever it is, the CPU may decode these clips
            self._pipeline = None
            hangs = isinstance(error, TimeoutError)
            said = f"no answer for {LIMIT_S:g} s" if hangs else " ".join(f"{type(error).__name__}: {error}".split())
            log.warning("DALI failed, so %d clips are decoded on the CPU: %s", len(clips), said)
            self._note(["DALI failed"] * len(clips))
            right = self._on_cpu({row: batch.wanted[row] for row in clips}).to(device)  # raises if a clip explains it
            self._fault(at_once=hangs)
            return right
        if self._stream is not None:
            video.record_stream(torch.cuda.current_stream(device))
        return self._compared(video, looks, clips, batch)

    def _compared(self, video: Tensor, looks: Tensor, clips: dict[int, EncodedClip], batch: PackedBatch) -> Tensor:
        """The pixels, those of clips that DALI did not decode replaced."""
        order = list(clips)
        doubtful = _doubtful(looks, list(clips.values()))
        if self._batches % EVERY == 0:
            doubtful[self._batches // EVERY % len(order)] = True
        some = np.flatnonzero(doubtful).tolist()
        if not some:
            return video
        right = self._on_cpu({order[n]: batch.wanted[order[n]] for n in some}).to(video.device)
        places = torch.tensor(some, device=video.device)
        apart = torch.stack(
            [(video[n].float() - own).abs().flatten(2).mean(2).max() for n, own in zip(some, right, strict=True)]
        )
        differs = apart > MOST_DIFFERENCE
        video[places[differs]] = right[differs]
        if wrong := [order[n] for n, own in zip(some, differs.tolist(), strict=True) if own]:
            names = ", ".join(batch.key[row * self._sampler.views] for row in wrong)
            log.warning("DALI returned other pictures than those of %s; they are decoded on the CPU", names)
            self._note(["DALI returned other pictures"] * len(wrong))
            self._fault()
        return video

    def _fault(self, *, at_once: bool = False) -> None:
        """Counts a fault, and gives DALI up after many."""
        self._faults = [one for one in self._faults if one > self._batches - WITHIN] + [self._batches]
        if self._given_up or not (at_once or len(self._faults) >= MOST_FAULTS):
            return
        self._given_up = True
        log.error(
            "DALI %s, so the rest of this run is decoded on the CPU, whose pixels differ from DALI's by a level or two",
            "hangs" if at_once else f"failed {MOST_FAULTS} times within {WITHIN} batches",
        )

    def _note(self, reasons: list[str]) -> None:
        """Counts clips that are decoded on the CPU, and logs each reason once."""
        for reason in reasons:
            if reason not in self.on_cpu:
                log.info("decoded on the CPU, as others like it will be: %s", reason)
            self.on_cpu[reason] += 1

    def _on_cpu(self, wanted: dict[int, Wanted]) -> Tensor:
        """The pixels of samples by row, decoded on the CPU; raises BadRowsError for those that cannot be."""
        requests = [self._sampler.request(one) for one in wanted.values()]
        draft = self._sampler.allocate(requests)
        with ThreadPoolExecutor(cores_of_rank(), initializer=compute_alone) as pool:
            filled = [pool.submit(self._sampler.fill, request, draft, n, Stats()) for n, request in enumerate(requests)]
        bad = {
            row: error
            for row, done in zip(wanted, filled, strict=True)
            if isinstance(error := done.exception(), SampleError)
        }
        if bad:
            raise BadRowsError(bad)
        for done in filled:
            done.result()
        return self._by_sample(draft.batch.video)

    def _by_sample(self, video: Tensor) -> Tensor:
        """Views as (rows, views, T, size, size, 3)."""
        return video.reshape(-1, self._sampler.views, *video.shape[1:])

    def _decoded(
        self, clips: list[EncodedClip], crops: list[list[Crop]], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """The pixels on the device, and the looks on the host, as in `clip_graph`."""
        size, frames, views = self._clip.size, self._clip.frames, self._sampler.views
        rows = len(clips)
        pipeline = self._pipeline
        if pipeline is None or pipeline.max_batch_size < rows:
            pipeline = self._pipeline = clip_pipeline(rows, views, size, self._threads, device)
        video, looks = pipeline.run(
            video=[clip.mp4 for clip in clips],
            frames=[clip.frames for clip in clips],
            order=[np.append(np.int32(0), clip.order) for clip in clips],
            regions=[
                np.stack([*(region(crop, size) for crop in own), look_region(clip.shown)])
                for clip, own in zip(clips, crops, strict=True)
            ],
            colours=[colours_after(clip.standard, clip.full_range) for clip in clips],
        )
        return (
            self._to_torch(video.as_tensor(), (rows, views, frames, size, size, 3), device),
            self._to_torch(looks.as_tensor(), (rows, 1 + frames, LOOK, LOOK, 3), device).cpu(),
        )

    def _to_torch(self, source: Any, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """A copy on the device, on a separate stream: the host waits for the copy, not for training steps."""
        if tuple(source.shape()) != shape:
            raise RuntimeError(f"DALI returned pixels of the shape {tuple(source.shape())}, not {shape}")
        if device.type == "cuda" and self._stream is None:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            made = torch.empty(shape, dtype=torch.uint8, device=device)
        dali_torch.feed_ndarray(source, made, cuda_stream=self._stream)
        if self._stream:
            self._stream.synchronize()
        return made


def _doubtful(looks: Tensor, clips: Sequence[EncodedClip]) -> npt.NDArray[np.bool_]:
    """Of which clips DALI's frames may be others, bool (rows,), by their looks, uint8 (rows, 1 + T, LOOK, LOOK, 3)."""
    luma = (looks.float() @ _LUMA).numpy()
    known = np.stack([clip.look for clip in clips]).astype(np.float32)
    limited = ~np.array([clip.full_range for clip in clips])
    known[limited] = ((known[limited] - 16) * (255 / 219)).clip(0, 255)
    apart = np.abs(luma[:, 0] - known).mean(axis=(1, 2))
    steps = np.abs(np.diff(luma, axis=1)).mean(axis=(2, 3)).max(axis=1)
    found: npt.NDArray[np.bool_] = (apart > MOST_DIFFERENCE) | (steps > LARGE_STEP)
    return found


MadeT = TypeVar("MadeT")


def _within(seconds: float, work: Callable[[], MadeT]) -> MadeT:
    """What `work` returns or raises in a thread of its own, which is left behind after so long, with a TimeoutError."""
    done: Future[MadeT] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    Thread(target=run, daemon=True, name="maskstream-dali").start()
    return done.result(seconds)
