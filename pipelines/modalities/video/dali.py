"""Decode and resize the clips of a batch with NVIDIA DALI: with NVDEC on a CUDA device; VP9 on the CPU.

Pixels agree with the CPU path up to the decoders' colour conversion (1 to 2 intensity levels on average).

Only one batch is in flight: DALI frees a decoder's buffers without waiting for their last copies (seen in the source of
DALI 2.4), and a second batch could overwrite them.
"""

from typing import Any

import numpy as np
import nvidia.dali
import nvidia.dali.fn
import nvidia.dali.plugin.pytorch
import torch
from torch import Tensor

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.decode.cpu import build_rgb_matrix
from maskstream.shards.arrays import Float32s

from .packing import LOOK, EncodedClip

dali: Any = nvidia.dali
"""Typed as Any because DALI is only partly annotated."""


def clip_graph(
    batch_size: int, views: int, size: int, threads: int, device: torch.device, *, encoded: bool = True
) -> Any:
    """Define the DALI pipeline from clips to pixels, without building it. Inputs are lists with one array per sample.

    Inputs:
        video: an MP4, uint8 (bytes,); with `encoded=False`, decoded frames, uint8 (F, height, width, 3), and no input
            `frames`.
        frames: as in `EncodedClip`.
        order: int32 (1 + T,), 0 for the keyframe, then `EncodedClip.order`.
        regions: float32 (views + 1, 6), see `region`; the last is the whole frame.
        colours: float32 (3, 4), see `build_colour_matrix`.

    Outputs:
        uint8 (views, T, size, size, 3), and thumbnails, uint8 (1 + T, LOOK, LOOK, 3), of the keyframe and of each
            frame.

    Resizing is linear with pixel centres at half; a crop of more than twice `size` is first resized to twice `size`
    with antialiasing, and the second step then averages pairs. For a CUDA device without a number, the pipeline can be
    serialised but not built.
    """
    fn, types, on_card = dali.fn, dali.types, device.type == "cuda"
    pipeline = dali.Pipeline(batch_size=batch_size, num_threads=threads, device_id=device.index, prefetch_queue_depth=1)
    with pipeline:
        layout, ndim = (None, 1) if encoded else ("FHWC", 4)
        video = fn.external_source(name="video", dtype=types.UINT8, ndim=ndim, layout=layout)
        order = fn.external_source(name="order", dtype=types.INT32, ndim=1)
        regions = fn.external_source(name="regions", dtype=types.FLOAT, ndim=2)
        colours = fn.external_source(name="colours", dtype=types.FLOAT, ndim=2)
        if encoded:
            frames = fn.external_source(name="frames", dtype=types.INT32, ndim=1)
            kind = "mixed" if on_card else "cpu"
            pixels = fn.decoders.video(video, device=kind, frames=frames, pad_mode="none", affine=False)
        else:
            pixels = video.gpu() if on_card else video
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


def region(crop: Crop, size: int) -> Float32s:
    """Return top, left, bottom, right of the crop (left and right swapped for a flip), and height, width of the first
    resize.
    """
    left, right = crop.x, crop.x + crop.width
    if crop.flip:
        left, right = right, left
    near = (min(crop.height, 2 * size), min(crop.width, 2 * size))
    return np.array([crop.y, left, crop.y + crop.height, right, *near], dtype=np.float32)


def look_region(shown: tuple[int, int]) -> Float32s:
    """Return the region of the whole frame, resized to LOOK x LOOK pixels; see `region`."""
    return np.array([0, 0, shown[1], shown[0], LOOK, LOOK], dtype=np.float32)


def build_colour_matrix(standard: str, full_range: bool) -> Float32s:
    """Return the correction from RGB converted as BT.601 to RGB of `standard`, float32 (3, 4): a matrix and a shift.

    DALI always converts as BT.601, with the video's range.
    """
    if standard == "bt601":
        return np.eye(3, 4, dtype=np.float32)
    right, made = build_rgb_matrix(standard, full_range), build_rgb_matrix("bt601", full_range)
    matrix = right[:, :3] @ np.linalg.inv(made[:, :3])
    shift = right[:, 3] - matrix @ made[:, 3]
    return np.concatenate([matrix, shift[:, None]], axis=1).astype(np.float32)


_LUMA = torch.tensor([0.299, 0.587, 0.114])
"""Luma weights of BT.601."""


class DaliDecoder:
    """Decodes clips with a DALI pipeline, built for the first batch and rebuilt for larger ones.

    Args:
        views: Number of views per clip.
        size: Height and width in pixels.
        threads: Number of DALI threads.
    """

    name = "DALI"
    most_difference = 8.0  # decoders differ by less than 3 levels (conversion, chroma siting), wrong frames by more

    def __init__(self, views: int, size: int, threads: int) -> None:
        self._views, self._size, self._threads = views, size, threads
        self._pipeline: Any = None
        self._stream: Any = None

    def forget(self) -> None:
        """Rebuild the pipeline for the next batch."""
        self._pipeline = None

    def __call__(
        self, clips: list[EncodedClip], crops: list[list[Crop]], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Return pixels on the device and thumbnail luma on the host; see `BatchDecoder`."""
        size, frames, views, rows = self._size, len(clips[0].order), self._views, len(clips)
        if self._pipeline is None or self._pipeline.max_batch_size < rows:
            self._pipeline = clip_graph(rows, views, size, self._threads, device)
            self._pipeline.build()
        video, looks = self._pipeline.run(
            video=[clip.mp4 for clip in clips],
            frames=[clip.frames for clip in clips],
            order=[np.append(np.int32(0), clip.order) for clip in clips],
            regions=[
                np.stack([*(region(crop, size) for crop in own), look_region(clip.shown)])
                for clip, own in zip(clips, crops, strict=True)
            ],
            colours=[build_colour_matrix(clip.standard, clip.full_range) for clip in clips],
        )
        pixels = self._to_torch(video.as_tensor(), (rows, views, frames, size, size, 3), device)
        seen = self._to_torch(looks.as_tensor(), (rows, 1 + frames, LOOK, LOOK, 3), device).cpu()
        return pixels, seen.float() @ _LUMA

    def _to_torch(self, source: Any, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Copy to the device on a separate stream: the host waits for the copy, not for training steps."""
        if tuple(source.shape()) != shape:
            raise RuntimeError(f"DALI returned pixels of shape {tuple(source.shape())}, not {shape}")
        if device.type == "cuda" and self._stream is None:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            made = torch.empty(shape, dtype=torch.uint8, device=device)
        dali.plugin.pytorch.feed_ndarray(source, made, cuda_stream=self._stream)
        if self._stream:
            self._stream.synchronize()
        return made
