"""Decode and resize whole batches with NVIDIA DALI: with NVDEC on a CUDA device, VP9 on the CPU.

The draws of clips, crops and masks are those of the CPU path (rows.py), and so are the decoded packets, which
`PackedRowMaker` packs for DALI (packing.py). Clips of other formats are decoded on the CPU and put into the batch.

Pixels agree with the CPU path up to the decoders' colour conversion (1 to 2 levels on average).

The data config makes a source of its own for DALI; that of mixtures knows nothing of it. Mixtures decode with PyAV.
"""

import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

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
from maskstream.pipelines.stream.topology import compute_alone
from maskstream.shards.errors import DataError, SampleError

from .batch import VideoBatch
from .clip import VideoClip
from .packing import EncodedClip, PackedBatch, Refusal, first_frame
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
    frames. frames, order: as in `EncodedClip`. regions: float32 (views, 6), see `region`. colours: float32 (3, 4), see
    `colours_after`. The output is uint8 (views, T, size, size, 3). Resizing is linear with pixel centres at half; a
    crop of more than twice `size` is first resized to twice `size` with antialiasing, and the second step then averages
    pairs. Without a `device_id` the graph of mode "gpu" can be serialised, and not built.
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
            clips.append(fn.sequence_rearrange(fn.reshape(right, layout="FHWC"), new_order=order))
        pipeline.set_outputs(fn.stack(*clips))
    return pipeline


def region(crop: Crop, size: int) -> npt.NDArray[np.float32]:
    """Top, left, bottom, right of the crop (left, right swapped for a flip); height, width of the first resize."""
    left, right = crop.x, crop.x + crop.width
    if crop.flip:
        left, right = right, left
    near = (min(crop.height, 2 * size), min(crop.width, 2 * size))
    return np.array([crop.y, left, crop.y + crop.height, right, *near], dtype=np.float32)


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

MOST_FAULTS = 3
"""After so many faults of DALI without a good batch between them, the rest of the run is decoded on the CPU."""
MOST_DIFFERENCE = 8.0
"""Levels, the mean over a frame: decoders differ by less than 3 (conversion, chroma siting), other pictures by more."""


class DaliFinish:
    """Decodes batches with a DALI pipeline, which is built for the first batch and rebuilt for a larger one.

    If DALI fails, it fails for the whole batch. Its clips are then decoded on the CPU, and those that fail there are
    bad rows. Of each batch one clip's first frame is also decoded on the CPU and compared, since a decoder can hand out
    memory that it did not write; if it differs, all clips of the batch are compared, and those that differ are decoded
    on the CPU. A failure that no bad clip explains, and a difference, are faults of DALI; after `MOST_FAULTS` in
    succession everything is decoded on the CPU.

    sampler: makes clips on the CPU, without fields. on_cpu: the clips that were decoded on the CPU, by reason.
    """

    def __init__(self, sampler: RowSampler[ClipPlan, VideoBatch], clip: VideoClip, threads: int) -> None:
        self._sampler, self._clip, self._threads = sampler, clip, threads
        self._pipeline: Any = None
        self._stream: Any = None
        self._batches = self._faults = 0
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
        if self._faults >= MOST_FAULTS:
            self._note(["after faults of DALI"] * len(clips))
            return self._on_cpu({row: batch.wanted[row] for row in clips}).to(device)
        try:
            video = self._decoded(list(clips.values()), [batch.crops[row] for row in clips], device)
        except RuntimeError as error:
            self._pipeline = None
            said = " ".join(str(error).split())
            log.warning("DALI failed, so %d clips are decoded on the CPU: %s", len(clips), said)
            self._note(["DALI failed"] * len(clips))
            video = self._on_cpu({row: batch.wanted[row] for row in clips}).to(device)  # raises if a clip explains it
            self._fault()
            return video
        return self._compared(video, clips, batch)

    def _compared(self, video: Tensor, clips: dict[int, EncodedClip], batch: PackedBatch) -> Tensor:
        """The pixels, those of clips that DALI did not decode replaced."""
        order = list(clips)
        place = self._batches % len(order)
        self._batches += 1
        if not self._differs(video[place], clips[order[place]], batch.crops[order[place]][0]):
            self._faults = 0
            return video
        wrong = [n for n, row in enumerate(order) if self._differs(video[n], clips[row], batch.crops[row][0])]
        views = self._sampler.views
        names = ", ".join(batch.key[order[n] * views] for n in wrong)
        log.warning("DALI returned other pictures than those of %s; they are decoded on the CPU", names)
        self._note(["DALI returned other pictures"] * len(wrong))
        right = self._on_cpu({order[n]: batch.wanted[order[n]] for n in wrong}).to(video.device)
        video[torch.tensor(wrong, device=video.device)] = right
        self._fault()
        return video

    def _differs(self, video: Tensor, clip: EncodedClip, crop: Crop) -> bool:
        """Whether the first frame of a clip's first view is another picture than that of the CPU."""
        try:
            expected = first_frame(clip, crop, self._clip.size)
        except DataError:
            return True
        found = video[0, 0].cpu().numpy()
        return bool(np.abs(found.astype(np.float32) - expected).mean() > MOST_DIFFERENCE)

    def _fault(self) -> None:
        self._faults += 1
        if self._faults == MOST_FAULTS:
            log.error("DALI failed %d times, so the rest of this run is decoded on the CPU", MOST_FAULTS)

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
        with ThreadPoolExecutor(self._threads, initializer=compute_alone) as pool:
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

    def _decoded(self, clips: list[EncodedClip], crops: list[list[Crop]], device: torch.device) -> Tensor:
        size, frames, views = self._clip.size, self._clip.frames, self._sampler.views
        rows = len(clips)
        if self._pipeline is None or self._pipeline.max_batch_size < rows:
            self._pipeline = clip_pipeline(rows, views, size, self._threads, device)
        (output,) = self._pipeline.run(
            video=[clip.mp4 for clip in clips],
            frames=[clip.frames for clip in clips],
            order=[clip.order for clip in clips],
            regions=[np.stack([region(crop, size) for crop in own]) for own in crops],
            colours=[colours_after(clip.standard, clip.full_range) for clip in clips],
        )
        return self._to_torch(output.as_tensor(), (rows, views, frames, size, size, 3), device)

    def _to_torch(self, source: Any, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """A copy on the device, on a separate stream: the host waits for the copy, not for training steps."""
        if tuple(source.shape()) != shape:
            raise RuntimeError(f"DALI returned pixels of the shape {tuple(source.shape())}, not {shape}")
        if device.type == "cuda" and self._stream is None:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            video = torch.empty(shape, dtype=torch.uint8, device=device)
        dali_torch.feed_ndarray(source, video, cuda_stream=self._stream)
        if self._stream:
            self._stream.synchronize()
            video.record_stream(torch.cuda.current_stream(device))
        return video
