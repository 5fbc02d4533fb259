"""Flow from pixels, filling of holes, and the batch's Flow."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch

from maskstream.pipelines.flow import ClipFlow, dis_flow, grid_shape, stack_flow
from maskstream.pipelines.flow.cells import fill


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def panned(x: int, y: int, frames: int = 4, side: int = 160) -> np.ndarray:
    """Content that moves by (x, y) pixels a frame, uint8 (T, side, side, 3)."""
    picture = texture(side + 100, side + 100)
    return np.stack([picture[50 - y * t :, 50 - x * t :][:side, :side] for t in range(frames)])


@pytest.mark.parametrize("motion", [(4, 0), (-3, 2), (0, -5)])
@pytest.mark.parametrize(("scale", "bound"), [(1.0, 0.5), (0.5, 0.5), (None, 0.5)])
def test_dis_finds_a_pan(motion: tuple[int, int], scale: float | None, bound: float) -> None:
    flow = dis_flow(panned(*motion), scale=scale)
    assert flow.vectors.shape == (3, 20, 20, 2)
    assert flow.vectors.dtype == np.float32
    assert flow.valid.all()
    error = np.linalg.norm(flow.vectors - np.array([-motion[0], -motion[1]]), axis=-1)[:, 2:-2, 2:-2]
    assert error.mean() < bound


def test_dis_says_where_pixels_were() -> None:
    """Warping frame t by the flow gives frame t+1: the definition, on a picture that is moved and enlarged."""
    picture = texture(200, 200)
    matrix = np.array([[1.03, 0, 2.0], [0, 1.03, -4.0]])
    clip = np.stack([picture, cv2.warpAffine(picture, matrix, (200, 200), borderMode=cv2.BORDER_REFLECT)])
    vectors = cv2.resize(dis_flow(clip, scale=1.0, preset="medium").vectors[0], (200, 200))
    y, x = np.mgrid[0:200, 0:200].astype(np.float32)
    back = cv2.remap(clip[0], x + vectors[..., 0], y + vectors[..., 1], cv2.INTER_LINEAR)
    inside = (slice(20, -20), slice(20, -20))
    wrong = np.abs(clip[1].astype(int) - clip[0])[inside].mean()
    assert np.abs(clip[1].astype(int) - back)[inside].mean() < 0.15 * wrong


def test_dis_scales_with_a_clip_that_is_not_square() -> None:
    flow = dis_flow(panned(4, 2)[:, :100, :150], cell=10)
    assert flow.vectors.shape == (3, 10, 15, 2)
    np.testing.assert_allclose(np.median(flow.vectors, axis=(0, 1, 2)), [-4, -2], atol=0.5)


def test_dis_is_the_same_from_many_threads_and_after_other_clips() -> None:
    """A thread uses its search again, for clips of any size."""
    clips = [panned(3, i % 6 - 3, side=side) for i, side in enumerate((160, 24, 240, 48, 12, 160, 100, 12))]
    with ThreadPoolExecutor(1) as one:
        alone = [one.submit(dis_flow, clip).result().vectors for clip in clips]
    for expected, clip in zip(alone, clips, strict=True):
        with ThreadPoolExecutor(1) as fresh:
            np.testing.assert_array_equal(fresh.submit(dis_flow, clip).result().vectors, expected)
    with ThreadPoolExecutor(4) as pool:
        for expected, found in zip(alone, pool.map(dis_flow, clips), strict=True):
            assert np.abs(expected).max() > 1
            np.testing.assert_array_equal(found.vectors, expected)


def test_dis_refuses_what_it_cannot_do() -> None:
    clip = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="preset must be one of ultrafast, fast, medium, got 'slow'"):
        dis_flow(clip, preset="slow")
    with pytest.raises(ValueError, match="or None, got 2"):
        dis_flow(clip, scale=2)
    with pytest.raises(ValueError, match=r"frames of 16 x 16 at scale 0\.5 are less than 12 pixels"):
        dis_flow(clip[:, :16, :16], scale=0.5)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        dis_flow(clip, cell=0)
    assert not dis_flow(clip).vectors.any()


def test_holes_take_the_mean_of_the_nearest_box() -> None:
    """Against a plain search: the smallest box of radius 1, 2, 4, ... that holds a valid cell."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(0, 5, (6, 9, 13, 2)).astype(np.float32)
    valid = generator.random((6, 9, 13)) < np.array([1.0, 0.9, 0.5, 0.05, 0.02, 0.0])[:, None, None]
    valid[4, 0, 0] = True
    expected = np.zeros_like(vectors)
    for k, i, j in np.ndindex(valid.shape):
        radius = 0
        while valid[k].any():
            box = (k, slice(max(i - radius, 0), i + radius + 1), slice(max(j - radius, 0), j + radius + 1))
            if valid[box].any():
                expected[k, i, j] = vectors[box][valid[box]].mean(axis=0)
                break
            radius = max(2 * radius, 1)
    filled = vectors.copy()
    sums = np.zeros((10, 14, 3))
    known = [fill(field, cells, sums) for field, cells in zip(filled, valid, strict=True)]
    assert known == valid.any((1, 2)).tolist()
    np.testing.assert_allclose(filled, expected, atol=1e-4)
    np.testing.assert_array_equal(filled[valid], vectors[valid])
    assert not filled[5].any()


def test_stack_flow_and_grid_shape() -> None:
    clips = [ClipFlow(np.full((3, 4, 5, 2), i, np.float32), np.full((3, 4, 5), i == 1)) for i in range(2)]
    flow = stack_flow(clips)
    assert flow.vectors.shape == (2, 3, 4, 5, 2)
    assert flow.vectors.dtype == torch.float32
    assert flow.valid.dtype == torch.bool
    assert flow.valid.float().mean((1, 2, 3)).tolist() == [0, 1]
    assert grid_shape(224, 112, 8) == (28, 14)
    assert grid_shape(100, 3, 8) == (12, 1)
