"""A made-up batch of clips with masks and flow, for the tests of pages about them; motion vectors on a grid."""

from collections.abc import Sequence

import numpy as np
import torch

from maskstream.pipelines.flow.base import Flow
from maskstream.pipelines.flow.cells import rasterise
from maskstream.pipelines.flow.codec import Vectors, compute_unit_grid, concatenated
from maskstream.pipelines.masks import Random, TokenGrid
from maskstream.pipelines.modalities.video.batch import VideoBatch

GRID = TokenGrid.video(8, 64, 64)


def rngs(n):
    return [np.random.default_rng(i) for i in range(n)]


def make_batch(n=2, mask=None, flow=True):
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randint(0, 256, (n, 8, 8, 8, 3), generator=generator, dtype=torch.uint8)
    video = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)
    vectors = torch.zeros(n, 7, 8, 8, 2)
    vectors[..., 0] = 4.0
    valid = torch.ones(n, 7, 8, 8, dtype=torch.bool)
    valid[:, :, 0, :4] = False
    return VideoBatch(
        video=video,
        mask=Random(ratio=0.75).draw(GRID, rngs(n)) if mask is None else mask,
        flow=Flow(vectors=vectors, valid=valid, cuts=torch.zeros(n, 7, dtype=torch.bool)) if flow else None,
        label=torch.arange(n) - 1,
        key=[f"clip{i}" for i in range(n)],
        pts_s=torch.arange(8, dtype=torch.float64).mul(0.25).expand(n, 8).contiguous(),
    )


def block_grids(frames: Sequence[Vectors | None], width: int, height: int) -> np.ndarray:
    """The vectors of K frames on a grid of 8 x 8 units: float32 (K, rows, columns, 3), (x, y, 1), else (0, 0, 0).

    x and y are in pixels of the source and point to the earlier frame. The grid covers whole macroblocks of 16 x 16
    pixels, which may exceed the frame. Vectors to a later frame are left out.
    """
    fields, ends = concatenated(frames)
    grids = np.empty((len(frames), 3, *compute_unit_grid(width, height)), dtype=np.float32)
    for grid, first, end in zip(grids, [0, *ends[:-1]], ends, strict=True):
        assert rasterise(fields, first, end, grid)
    return grids.transpose(0, 2, 3, 1)
