"""MotionGuided against exact shifts, an analytic zoom, and a slow reference at full resolution."""

from typing import Literal

import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample

from maskstream.pipelines.flow.base import Flow
from maskstream.pipelines.masks import Cues, Draw, MotionGuided, TokenGrid
from maskstream.pipelines.masks.patterns.maps import inverse
from maskstream.pipelines.masks.patterns.motion_guided import start_map

FRAMES, SIDE = 8, 224
GRID = TokenGrid.video(FRAMES, SIDE, SIDE, tubelet=1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


def drawn(flow: Flow, seeds: list[int]) -> list[Draw]:
    return [Draw(rng=rng(s), cues=Cues(flow=v)) for s, v in zip(seeds, flow.vectors.numpy(), strict=True)]


def flow_of(vectors: np.ndarray) -> Flow:
    tensor = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))[None]
    valid = torch.ones(tensor.shape[:-1], dtype=torch.bool)
    return Flow(vectors=tensor, valid=valid, cuts=torch.zeros(tensor.shape[:2], dtype=torch.bool))


def pan(x: float, y: float = 0.0, frames: int = FRAMES) -> Flow:
    """The backward flow of content that moves by (x, y) pixels a frame."""
    return flow_of(np.broadcast_to((-x, -y), (frames - 1, 28, 28, 2)))


def shown(mask: MotionGuided, flow: Flow, seed: int = 0, grid: TokenGrid = GRID) -> np.ndarray:
    """True = visible, (t, h, w)."""
    return ~mask.draw(grid, drawn(flow, [seed])).masked[0].reshape(grid.shape).numpy()


def shift(plane: np.ndarray, columns: int, rows: int, entering: np.ndarray) -> np.ndarray:
    """`plane` moved right and down by whole places; what enters has the values of `entering`."""
    moved = np.roll(plane, (rows, columns), axis=(0, 1))
    new = np.zeros(plane.shape, dtype=bool)
    new[:, : max(columns, 0)] = new[: max(rows, 0)] = True
    if columns < 0:
        new[:, columns:] = True
    if rows < 0:
        new[rows:] = True
    return np.where(new, entering, moved)


@pytest.mark.parametrize("step", [(1, 0), (-1, 0), (0, 1), (1, -1)])
@pytest.mark.parametrize("base", ["middle", "first"])
@pytest.mark.parametrize("compat", [False, True])
def test_visible_tokens_move_with_the_content(
    step: tuple[int, int], base: Literal["middle", "first"], compat: bool
) -> None:
    """Content moves by whole patches, so the map of each frame is known without interpolation.

    Before the base the mask has to be where the content was, against the motion; the published code (compat) puts it
    on the other side.
    """
    mask = MotionGuided(start="token", base=base, compat=compat)
    first = start_map("token", (14, 14), 1, 0.9, rng(), compat=compat) == 1
    assert first.sum() == (20 if compat else 19)
    expected = {(FRAMES // 2 if base == "middle" else 0): first}
    for frame in range(min(expected) + 1, FRAMES):
        expected[frame] = shift(expected[frame - 1], *step, first)
    back = step if compat else (-step[0], -step[1])
    for frame in range(min(expected) - 1, -1, -1):
        expected[frame] = shift(expected[frame + 1], *back, first)
    visible = shown(mask, pan(16 * step[0], 16 * step[1]))
    for frame in range(FRAMES):
        assert visible[frame].sum() == 19
        assert (visible[frame] & expected[frame]).sum() == min(19, expected[frame].sum()), frame


def test_the_two_directions_before_the_base_differ() -> None:
    right, published = (shown(MotionGuided(compat=c), pan(24)) for c in (False, True))
    after, before = ((right[part] & published[part]).sum() / right[part].sum() for part in (slice(4, None), slice(4)))
    assert after > 0.8  # not 1, since the published map has one bump more
    assert before < 0.5


def test_without_fill_nothing_that_enters_is_visible() -> None:
    mask = MotionGuided(start="pixel", ratio=0.5, base="first", fill="none")
    visible = shown(mask, pan(32))
    assert not visible[1, :, :2].any()
    assert not visible[3, :, :6].any()
    filled = shown(MotionGuided(start="pixel", ratio=0.5, base="first"), pan(32))
    assert filled[3, :, :6].any()


def test_still_content_is_masked_as_a_tube() -> None:
    for start in ("mix_gauss", "pixel", "token"):
        visible = shown(MotionGuided(start=start), pan(0))
        assert (visible == visible[:1]).all()


def test_the_base_is_drawn_per_sample() -> None:
    """A token start is sharp only in its base frame once the motion is by half patches."""
    mask = MotionGuided(start="token", base="random")
    batch = mask.draw(GRID, drawn(repeated(pan(8), 40), list(range(40))))
    visible = ~batch.masked.reshape(40, FRAMES, 14, 14).numpy()
    bases = set()
    for i in range(40):
        generator = rng(i)
        first = start_map("token", (14, 14), 1, 0.9, generator) == 1
        base = int(generator.integers(FRAMES))
        assert (visible[i, base] & first).sum() == 19
        bases.add(base)
    assert bases == set(range(FRAMES))


def repeated(flow: Flow, count: int) -> Flow:
    vectors, valid = flow.vectors.expand(count, -1, -1, -1, -1), flow.valid.expand(count, -1, -1, -1)
    return Flow(vectors=vectors, valid=valid, cuts=flow.cuts.expand(count, -1))


def test_per_clip_the_slices_differ_in_count() -> None:
    vectors = np.zeros((FRAMES - 1, 28, 28, 2), dtype=np.float32)
    vectors[4:, :, :14, 0] = 300.0  # the left half comes from outside, and stays dark without fill
    visible = shown(MotionGuided(per="clip", fill="none"), flow_of(vectors))
    counts = visible.sum((1, 2))
    assert counts.sum() == 8 * 19
    assert counts[:4].min() > counts[5:].max()
    assert set(shown(MotionGuided(fill="none"), flow_of(vectors)).sum((1, 2)).tolist()) == {19}


def test_exposure_disturbs_one_slice() -> None:
    calm = shown(MotionGuided(), pan(0))
    disturbed = shown(MotionGuided(exposure=1000.0), pan(0))
    assert ((calm == disturbed).all((1, 2))).sum() in (0, FRAMES - 1)
    same = [(plane == disturbed[0]).all() for plane in disturbed]
    assert sum(same) in (1, FRAMES - 1)


def zoom(factor: float, cells: int, unit: float) -> np.ndarray:
    """Backward flow (cells, cells, 2) of content that grows by `factor` a frame, in units of `unit` pixels."""
    centre = (np.arange(cells) + 0.5) * (SIDE / cells) - SIDE / 2
    x, y = np.meshgrid(centre, centre)
    return np.stack([x, y], axis=-1) * (1 / factor - 1) / unit


@pytest.mark.parametrize("factor", [1.15, 0.85])
def test_inverse_of_a_zoom(factor: float) -> None:
    cell = SIDE / 28
    field = zoom(factor, 28, cell).astype(np.float32)
    found = inverse(np.stack([field, field * 0.5]))[0]
    expected = zoom(1 / factor, 28, cell)
    inside = (slice(3, -3), slice(3, -3))
    error, of_a_change_of_sign = (np.abs(v - expected)[inside].max() for v in (found, -field))
    assert error < 0.06
    assert error < 0.25 * of_a_change_of_sign


def reference(start: np.ndarray, forward: np.ndarray, backward: np.ndarray, base: int, visible: int) -> np.ndarray:
    """The masks of one clip with torch at pixel resolution: sample, fill, sum per token, take the highest."""
    positions = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="xy"), dim=-1).double()

    def moved(plane: torch.Tensor, vectors: np.ndarray) -> torch.Tensor:
        where = (positions + torch.from_numpy(vectors)) / (SIDE - 1) * 2 - 1
        result = grid_sample(plane[None, None], where[None], padding_mode="zeros", align_corners=True)[0, 0]
        return torch.where(result == 0, first, result)

    first = torch.from_numpy(start.astype(np.float64))
    planes = {base: first}
    for frame in range(base + 1, FRAMES):
        planes[frame] = moved(planes[frame - 1], backward)
    for frame in range(base - 1, -1, -1):
        planes[frame] = moved(planes[frame + 1], forward)
    result = np.zeros((FRAMES, 196), dtype=bool)
    for frame, plane in planes.items():
        scores = plane.reshape(14, 16, 14, 16).sum((1, 3)).reshape(-1)
        result[frame, scores.argsort(descending=True)[:visible]] = True
    return result.reshape(FRAMES, 14, 14)


@pytest.mark.parametrize(("cells", "agreement"), [(16, 0.97), (4, 0.93)])
def test_zoom_agrees_with_a_reference_at_pixel_resolution(cells: int, agreement: float) -> None:
    """An accelerating, place-dependent motion: both directions of the flow are known, and neither is constant."""
    factor = 1.08
    flow = flow_of(np.broadcast_to(zoom(factor, 28, 1.0), (FRAMES - 1, 28, 28, 2)))
    backward, forward = zoom(factor, SIDE, 1.0), zoom(1 / factor, SIDE, 1.0)
    shares = []
    for seed in range(6):
        start = start_map("mix_gauss", (14, 14), 16, 0.9, rng(seed))
        expected = reference(start, forward, backward, base=4, visible=19)
        found = shown(MotionGuided(cells=cells), flow, seed)
        shares.append((found & expected).sum() / expected.sum())
    assert np.mean(shares) > agreement
    compat = shown(MotionGuided(cells=cells, compat=True), flow, 5)
    assert (compat & expected).sum() / expected.sum() < np.mean(shares) - 0.1


def test_start_maps() -> None:
    gauss = start_map("mix_gauss", (14, 14), 16, 0.9, rng())
    chosen = rng().permutation(196)[:19]
    y, x = np.mgrid[0:224, 0:224]
    bumps = [np.exp(-(((x - c % 14 * 16 - 7.5) / 16) ** 2) - ((y - c // 14 * 16 - 7.5) / 16) ** 2) for c in chosen]
    expected = np.max(bumps, axis=0)
    np.testing.assert_allclose(gauss, np.maximum(expected / expected.max(), 1e-8), rtol=1e-4, atol=1e-8)
    pixel = start_map("pixel", (14, 14), 16, 0.9, rng())
    assert (pixel == 1).sum() == 5017  # floor(224 * 224 / 10)
    token = start_map("token", (7, 14), 4, 0.9, rng())
    assert token.shape == (28, 56)
    assert (token == 1).sum() == 16 * 9
    published = start_map("token", (7, 14), 4, 0.9, rng(), compat=True)
    assert (published == 1).sum() == 16 * 10
    assert (published[token == 1] == 1).all()
    assert min(gauss.min(), pixel.min(), token.min()) > 0


def test_frames_that_are_not_square_and_a_flow_grid_of_any_size() -> None:
    grid = TokenGrid.video(8, 64, 128, tubelet=1)
    vectors = np.broadcast_to((-16.0, 0.0), (7, 5, 11, 2))
    visible = shown(MotionGuided(start="token", ratio=0.75), flow_of(vectors), grid=grid)
    first = start_map("token", (4, 8), 1, 0.75, rng()) == 1
    assert (visible.sum((1, 2)) == 8).all()
    assert (visible[4] == first).all()
    after, before = shift(first, 1, 0, first), shift(first, -1, 0, first)
    assert (visible[5] & after).sum() == min(8, after.sum())
    assert (visible[3] & before).sum() == min(8, before.sum())
