"""The DALI graph from clips to pixels: decode, crop, resize, colours."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import nvidia.dali
import nvidia.dali.fn
import torch

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.decode.cpu import yuv_to_rgb

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
