"""Motion-guided masks in torch: the tokens of numba's loops, bit by bit."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
import torch

from maskstream.pipelines.masks import Cues, Draw, MotionGuided, TokenGrid, Uniform
from maskstream.pipelines.masks.core import placed
from maskstream.pipelines.masks.patterns.motion_guided import (
    Base,
    Fill,
    Per,
    Start,
    import_numba_maps,
    import_torch_maps,
)
from maskstream.pipelines.masks.patterns.torch_maps import send_draws

CLIPS = 3


def motion(grid: TokenGrid, cells: tuple[int, int], seed: int) -> np.ndarray:
    """Flow (CLIPS, T-1, h, w, 2) that is smooth in one clip, of whole pixels in the next, and noise in the last."""
    rng, pairs = np.random.default_rng(seed), grid.shape[0] * grid.patch[0] - 1
    y, x = np.mgrid[0 : cells[0], 0 : cells[1]]
    smooth = np.stack([9 * np.sin(x / 5 + seed), -7 * np.cos(y / 4)], axis=-1) * rng.uniform(-2, 2, (pairs, 1, 1, 1))
    whole = np.broadcast_to(rng.integers(-24, 25, (pairs, 1, 1, 2)), smooth.shape)
    return np.stack([smooth, whole, rng.normal(0, 15, smooth.shape)]).astype(np.float32)


def both(mask: MotionGuided, grid: TokenGrid, flow: np.ndarray, seed: int = 0) -> list[Any]:
    """The masks of numba and of torch, from generators of the same keys."""

    def draws() -> Sequence[Draw]:
        return [Draw.of(seed, 0, str(n), 0, Draw(rng=np.random.default_rng()).place, Cues(flow=f)) for n, f in each]

    each = list(enumerate(flow))
    return [mask.draw(grid, draws()), mask.draw_on_device(grid, draws(), torch.from_numpy(flow))]


def assert_equal(mask: MotionGuided, grid: TokenGrid, flow: np.ndarray, seed: int = 0) -> None:
    numba, ours = both(mask, grid, flow, seed)
    for name in ("masked", "visible", "target", "weight"):
        expected, found = getattr(numba, name), getattr(ours, name)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), name
        assert torch.equal(found, expected), (mask, name)
    assert len({row.numpy().tobytes() for row in ours.masked}) == len(flow), "the clips have different masks"


@pytest.mark.parametrize("start", get_args(Start))
@pytest.mark.parametrize("base", get_args(Base))
def test_tokens_are_those_of_the_compiled_loops(start: Start, base: Base) -> None:
    grid = TokenGrid.video(8, 112, 112)
    for seed, (per, fill, compat) in enumerate(product(get_args(Per), get_args(Fill), (False, True))):
        mask = MotionGuided(start=start, base=base, per=per, fill=fill, compat=compat)
        assert_equal(mask, grid, motion(grid, (14, 14), seed), seed)
        assert_equal(replace(mask, exposure=1.0), grid, motion(grid, (14, 14), seed), seed)


@pytest.mark.parametrize("cells", [1, 3, 16])
def test_any_grid_and_any_resolution(cells: int) -> None:
    for height, width, field in ((96, 160, (5, 11)), (32, 32, (1, 1)), (224, 224, (56, 56))):
        grid = TokenGrid.video(6, height, width, tubelet=2)
        assert_equal(MotionGuided(cells=cells, ratio=0.5, base="random"), grid, motion(grid, field, cells), cells)


def test_flow_that_is_no_number_or_leads_far_away() -> None:
    grid = TokenGrid.video(8, 64, 64)
    flow = motion(grid, (8, 8), 1)
    flow[:, 2, 3, 4], flow[:, 4, 5] = np.nan, np.inf
    flow[:, 5, :, 2], flow[:, 6] = -1e30, 1e9
    for fill in get_args(Fill):
        assert_equal(MotionGuided(ratio=0.75, fill=fill), grid, flow)


def test_every_step_of_the_rule_agrees_bit_by_bit() -> None:
    grid = TokenGrid.video(8, 224, 224)
    flow = motion(grid, (28, 28), 7)
    mask = MotionGuided(base="random", exposure=2.0)
    draws = [mask.draw_motion(grid, Draw(rng=np.random.default_rng(n))) for n in range(CLIPS)]
    assert len({own.base for own in draws}) > 1
    settings: dict[str, Any] = {"cell": (4.0, 4.0), "fill": True, "compat": False}
    one, other = import_numba_maps(), import_torch_maps()
    sent = send_draws(draws, 4, torch.device("cpu"))
    maps, tensors = one.carry(draws, [*flow], **settings), other.carry(sent, torch.from_numpy(flow), **settings)
    np.testing.assert_array_equal(tensors.numpy(), np.stack(maps))
    scores, sums = one.sum_tokens(maps, 2, 4), other.sum_tokens(tensors, 2, 4)
    np.testing.assert_array_equal(sums.numpy(), np.stack(scores))
    disturbed = other.disturbed(sums, sent, 16.0)
    np.testing.assert_array_equal(disturbed.numpy(), np.stack(one.disturbed(scores, draws, 16.0)))


def test_of_equal_scores_the_order_decides() -> None:
    grid = TokenGrid.video(8, 64, 64)
    mask = MotionGuided(start="token", ratio=0.75)
    still = np.zeros((CLIPS, 7, 4, 4, 2), np.float32)
    still[1] = 1e6  # everything comes from outside
    assert_equal(replace(mask, fill="none"), grid, still)
    draws = [mask.draw_motion(grid, Draw(rng=np.random.default_rng(0)))] * CLIPS
    sent = send_draws(draws, 4, torch.device("cpu"))
    hidden = import_torch_maps().hide_all_but_highest(torch.zeros(CLIPS, 4, 16), sent, whole=False).view(CLIPS, 4, 16)
    assert (hidden.sum(2) == 12).all()
    assert not hidden[..., draws[0].order[:4]].any()


def test_what_is_refused() -> None:
    grid = TokenGrid.video(8, 64, 64)
    flow = torch.zeros(2, 7, 8, 8, 2)
    draws = [Draw(rng=np.random.default_rng(n)) for n in range(2)]
    with pytest.raises(ValueError, match=r"the flow between them, with shape \(7, h, w, 2\), got \(6, 8, 8, 2\)"):
        MotionGuided().draw_on_device(grid, draws, flow[:, 1:])
    with pytest.raises(ValueError, match=r"equally many visible tokens, got .*masks\.Padded"):
        MotionGuided(ratio=Uniform(low=0.1, high=0.9)).draw_on_device(grid, draws, flow)
    none = placed(torch.ones(2, 5, dtype=torch.bool), [0, 0], grid)
    assert none.visible.shape == (2, 0)
    assert none.target.tolist() == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # torch calls it a prototype
@pytest.mark.skipif(not torch.cuda.is_available(), reason="tensors on a card need a CUDA device")
def test_on_a_card_nothing_waits_and_tokens_are_the_same() -> None:
    grid = TokenGrid.video(16, 224, 224)
    flow = motion(grid, (28, 28), 3)
    for mask in (MotionGuided(), MotionGuided(base="random", exposure=1.0)):
        draws = [[Draw.of(0, 0, str(n), 0, Draw(rng=np.random.default_rng()).place, Cues()) for n in range(CLIPS)]] * 2
        mask.draw_on_device(grid, draws[0], torch.from_numpy(flow).cuda())
        on_card = torch.from_numpy(flow).cuda()
        fresh = [Draw.of(0, 0, str(n), 0, draws[1][n].place, Cues(flow=f)) for n, f in enumerate(flow)]
        torch.cuda.set_sync_debug_mode("error")
        try:
            found = mask.draw_on_device(grid, fresh, on_card)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        again = [Draw.of(0, 0, str(n), 0, draws[1][n].place, Cues(flow=f)) for n, f in enumerate(flow)]
        assert torch.equal(found.to("cpu").masked, mask.draw(grid, again).masked)
