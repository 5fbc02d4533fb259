"""Block masks against independent code: BEiT's generator as Hugging Face ships it for FLAVA, and a slow V-JEPA."""

import random
from collections.abc import Iterator
from math import sqrt

import numpy as np
import numpy.typing as npt
import pytest

from maskstream.pipelines.masks import Block, MultiBlock, UniformCount

from .mask_table import CLIP, IMAGE, draws_of

COUNT = 1200
Maps = npt.NDArray[np.float64]


@pytest.fixture
def restored() -> Iterator[None]:
    """The standard library's generator, which the reference draws from, as it was."""
    state = random.getstate()
    random.seed(5)
    yield
    random.setstate(state)


def ours(mask: Block | MultiBlock, grid: object) -> Maps:
    draws = draws_of(grid, [str(i) for i in range(COUNT)])
    return np.stack([mask.hide(grid, d) for d in draws]).reshape(COUNT, *grid.shape).astype(float)


def check_alike(a: Maps, b: Maps) -> None:
    """Numbers of hidden tokens, each place's share, and pairs of neighbours agree within what chance allows."""
    share = (a.mean(0) + b.mean(0)) / 2
    assert (np.abs(a.mean(0) - b.mean(0)) <= 5 * np.sqrt(share * (1 - share) * 2 / COUNT)).all()
    for figure in (lambda m: m.sum((1, 2)), lambda m: (m[:, 1:] * m[:, :-1]).sum((1, 2)), corners):
        x, y = figure(a), figure(b)
        error = sqrt((x.var() + y.var()) / COUNT)
        assert abs(x.mean() - y.mean()) <= 4.5 * error
        assert abs(x.std() - y.std()) <= 4.5 * error


def corners(maps: Maps) -> Maps:
    """How many 2 x 2 squares have three hidden tokens: few where rectangles are large."""
    squares = maps[:, 1:, 1:] + maps[:, :-1, 1:] + maps[:, 1:, :-1] + maps[:, :-1, :-1]
    return (squares == 3).sum((1, 2)).astype(float)


def test_block_is_beits(restored: None) -> None:
    flava = pytest.importorskip("transformers.models.flava.image_processing_pil_flava")
    generator = flava.FlavaMaskingGenerator(input_size=14, total_mask_patches=75, mask_group_min_patches=16)
    published = np.stack([generator().numpy() for _ in range(COUNT)]).astype(float)
    counted = UniformCount(low=75, high=75)
    check_alike(ours(Block(ratio=counted, exact=False), IMAGE), published)
    exact = ours(Block(ratio=counted), IMAGE)
    assert (exact.sum((1, 2)) == 75).all()
    assert (published.sum((1, 2)) <= 75).all()
    assert published.sum((1, 2)).mean() > 70


def slow_multi_block(blocks: int, scale: float) -> Maps:
    """The plane of one clip, block by block and place by place; blocks last all the time."""
    aspect = random.uniform(0.75, 1.5)
    area = int(196 * scale)
    h, w = min(round(sqrt(area * aspect)), 14), min(round(sqrt(area / aspect)), 14)
    while True:
        plane = np.zeros((14, 14))
        for _ in range(blocks):
            top, left = random.randint(0, 14 - h), random.randint(0, 14 - w)
            for i in range(top, top + h):
                for j in range(left, left + w):
                    plane[i, j] = 1
        if plane.min() == 0:
            return plane


@pytest.mark.parametrize(("blocks", "scale"), [(8, 0.15), (2, 0.7)])
def test_multi_block_is_v_jepas(restored: None, blocks: int, scale: float) -> None:
    slow = np.stack([slow_multi_block(blocks, scale) for _ in range(COUNT)])
    maps = ours(MultiBlock(blocks=blocks, scale=(scale, scale), scope="view"), CLIP)
    assert (maps == maps[:, :1]).all()
    check_alike(maps[:, 0], slow)
    assert 0.6 < maps.mean() < 0.95
