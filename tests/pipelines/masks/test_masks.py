"""Masks: exact counts, uniformity, independence of the batch, and what each pattern promises."""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskstream.pipelines.flow.base import Flow
from maskstream.pipelines.masks import (
    MASKS,
    ByView,
    Cues,
    Draw,
    Dual,
    Fixed,
    MaskBatch,
    MotionGuided,
    MultiBlock,
    Padded,
    ProportionSchedule,
    Random,
    RunningCell,
    TokenGrid,
    Tube,
    mask_batch,
    visible_count,
)
from maskstream.pipelines.stream.rng import Place

VIDEO = TokenGrid.video(16, 224, 224)


def rngs(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.Generator(np.random.Philox(key=[seed, i])) for i in range(count)]


def some_flow(samples: int, frames: int = 16, seed: int = 0) -> Flow:
    vectors = np.random.default_rng(seed).normal(0, 6, (samples, frames - 1, 7, 7, 2)).astype(np.float32)
    return uncut(torch.from_numpy(vectors))


def uncut(vectors: torch.Tensor) -> Flow:
    valid = torch.ones(vectors.shape[:-1], dtype=torch.bool)
    return Flow(vectors=vectors, valid=valid, cuts=torch.zeros(vectors.shape[:2], dtype=torch.bool))


def draws(count: int, flow: Flow | None = None, seed: int = 0, progress: float = 0.0) -> list[Draw]:
    cues = [Cues()] * count if flow is None else [Cues(flow=v) for v in flow.vectors.numpy()]
    place = Place(progress=progress)
    return [Draw(rng=r, cues=c, place=place) for r, c in zip(rngs(count, seed), cues, strict=True)]


@pytest.mark.parametrize(
    ("n", "ratio", "rounding", "visible"),
    [
        (196, 0.9, "floor_masked", 20),
        (256, 0.9, "floor_masked", 26),
        (196, 0.9, "floor_visible", 19),
        (1568, 0.9, "floor_visible", 156),
        (512, 0.8, "floor_visible", 102),
        (196, 0.75, "floor_visible", 49),
        (196, 0.95, "floor_visible", 9),
        (196, 0.98, "floor_visible", 3),
        (196, 0.985, "floor_visible", 2),
        (256, 0.5, "ceil_masked", 128),
        (25, 0.1, "nearest_masked", 23),
        (25, 0.1, "half_up_masked", 22),
        (25, 0.01, "half_up_masked", 24),
        (25, 0.0, "half_up_masked", 25),
    ],
)
def test_published_counts(n: int, ratio: float, rounding: str, visible: int) -> None:
    assert visible_count(n, ratio, rounding) == visible


@given(st.integers(1, 5000), st.integers(0, 1000))
def test_counts_are_those_of_decimal_arithmetic(n: int, thousandths: int) -> None:
    ratio = thousandths / 1000
    masked = Decimal(thousandths) / 1000 * n
    expected = {
        "floor_masked": n - masked.to_integral_value(ROUND_FLOOR),
        "floor_visible": (n - masked).to_integral_value(ROUND_FLOOR),
        "ceil_masked": n - masked.to_integral_value(ROUND_CEILING),
    }
    assert {rounding: visible_count(n, ratio, rounding) for rounding in expected} == expected


def test_random_tokens_are_uncorrelated() -> None:
    grid = TokenGrid(axes=("t", "h", "w"), shape=(2, 2, 2), patch=(1, 1, 1))
    masked = Random(ratio=0.5).draw(grid, rngs(4000)).masked.double()
    pairs = torch.corrcoef(masked.T)[~torch.eye(8, dtype=torch.bool)]
    assert (pairs + 1 / 7).abs().max() < 0.06  # exactly half are drawn, so each pair has a correlation of -1/7


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("shape", [(8, 14, 14), (5, 2, 6), (4, 16, 16)])
def test_running_cell(ratio: float, shape: tuple[int, int, int]) -> None:
    t, h, w = shape
    grid = TokenGrid(axes=("t", "h", "w"), shape=shape, patch=(2, 16, 16))
    masked = RunningCell(ratio=ratio).draw(grid, rngs(64)).masked.reshape(64, t, h, w)
    assert (masked.sum((2, 3)) == ratio * h * w).all()
    for first in range(t - 3):
        assert (masked[:, first : first + 4].sum(1) == 4 * ratio).all()
    assert (masked[:, :, ::2, ::2] == masked[:, :, :1, :1]).all()
    starts = {tuple(m[0, :2, :2].reshape(-1).tolist()) for m in masked}
    assert len(starts) == 4


def test_running_cell_turns_as_published() -> None:
    """Slice f shows the queue [1, 1, 0, 0] read from place start + f + 1 on."""
    grid = TokenGrid(axes=("t", "h", "w"), shape=(8, 2, 2), patch=(2, 16, 16))
    masked = RunningCell(ratio=0.5).draw(grid, rngs(40)).masked.reshape(40, 8, 4).int().tolist()
    queue = [1, 1, 0, 0]
    published = [[[queue[(i + start + f + 1) % 4] for i in range(4)] for f in range(8)] for start in range(4)]
    assert all(clip in published for clip in masked)


def test_dual_weighs_what_the_encoder_saw_with_zero() -> None:
    batch = Dual().draw(VIDEO, rngs(4))
    seen = [set(v) & set(t) for v, t in zip(batch.visible.tolist(), batch.target.tolist(), strict=True)]
    assert [784 - len(s) for s in seen] == batch.weight.sum(1).tolist()
    assert all(seen)
    assert Dual(encoder=Random(), decoder=Tube(ratio=0.5)).needs == frozenset()
    assert Dual(encoder=MotionGuided()).needs == {"flow"}


class Changing(ProportionSchedule):
    """A schedule for the tests: what a schedule may do with progress and with the sample's generator."""

    def draw(self, draw: Draw) -> float:
        return 0.5 if draw.place.progress < 0.5 else float(draw.rng.choice([0.25, 0.75]))


def test_schedules_see_progress_and_ragged_batches_are_refused() -> None:
    mask = Random(ratio=Changing())
    assert mask.draw(VIDEO, rngs(4)).visible.shape == (4, 784)
    assert {mask.draw(VIDEO, [d]).visible.shape[1] for d in draws(16, progress=1.0)} == {392, 1176}
    with pytest.raises(ValueError, match="equally many visible tokens, got 392 to 1176"):
        mask.draw(VIDEO, draws(16, progress=1.0))
    assert torch.equal(
        Random(ratio=Fixed(ratio=0.8)).draw(VIDEO, rngs(2)).masked, Random(ratio=0.8).draw(VIDEO, rngs(2)).masked
    )


def test_an_empty_batch_and_full_masks() -> None:
    assert Random().draw(VIDEO, []).masked.shape == (0, 1568)
    assert Random(ratio=1.0).draw(VIDEO, rngs(1)).visible.shape == (1, 0)
    grid = TokenGrid(axes=("node",), shape=(4,), patch=(1,))
    assert mask_batch(np.zeros((2, 4), dtype=bool), grid=grid).target.shape == (2, 0)


def test_grids() -> None:
    assert TokenGrid() == TokenGrid.video(16, 224, 224)
    assert TokenGrid.video(16, 224, 224).size == 1568
    assert TokenGrid.video(8, 112, 160, tubelet=1, patch=8).shape == (8, 14, 20)
    with pytest.raises(ValueError, match=r"height=225 is not a positive multiple of 16; 224 and 240 are"):
        TokenGrid.video(16, 225, 224)
    with pytest.raises(ValueError, match="frames=0 is not a positive multiple of 2; 2 and 4 are"):
        TokenGrid.video(0, 224, 224)
    with pytest.raises(ValueError, match="at least 1, got tubelet=0"):
        TokenGrid.video(16, 224, 224, tubelet=0)
    with pytest.raises(ValueError, match="one length and one patch size per axis"):
        TokenGrid(axes=("t", "h"), shape=(8, 14, 14), patch=(2, 16, 16))
    with pytest.raises(ValueError, match="different names"):
        TokenGrid(axes=("t", "h", "h"))
    with pytest.raises(ValueError, match="at least 1"):
        TokenGrid(shape=(8, 0, 14))


def test_wrong_grids_and_flows_are_refused() -> None:
    audio = TokenGrid(axes=("time", "freq"), shape=(64, 8), patch=(16, 16))
    assert Random().draw(audio, rngs(1)).masked.shape == (1, 512)
    with pytest.raises(ValueError, match=r"Tube needs a grid with an axis 't', got \('time', 'freq'\)"):
        Tube().draw(audio, rngs(1))
    for mask in (RunningCell(), MotionGuided()):
        with pytest.raises(ValueError, match=r"needs a grid with the axes \('t', 'h', 'w'\), got \('time', 'freq'\)"):
            mask.draw(audio, draws(1, some_flow(1)))
    with pytest.raises(ValueError, match="h and w must be even, got h=7, w=7"):
        RunningCell().draw(TokenGrid.video(16, 112, 112), rngs(1))
    with pytest.raises(ValueError, match="MotionGuided needs the mask input flow"):
        MotionGuided().draw(VIDEO, rngs(1))
    with pytest.raises(
        ValueError, match=r"16 frames needs the flow between them, with shape \(15, h, w, 2\), got \(7, 7, 7, 2\)"
    ):
        MotionGuided().draw(VIDEO, draws(1, some_flow(1, frames=8)))


def test_padded_masks_say_what_is_real() -> None:
    mask = Padded(mask=Random(ratio=Changing()), bucket=100)
    apart = [mask.draw(VIDEO, [d]) for d in draws(16, progress=1.0)]
    for batch in (mask.draw(VIDEO, draws(16, progress=1.0)), MaskBatch.concatenated(apart)):
        assert batch.visible.shape == (16, 1200)
        assert batch.target.shape == batch.weight.shape == (16, 1200)
        assert set(batch.n_visible.tolist()) == {392, 1176}
        assert (batch.n_visible + batch.n_target == 1568).all()
        for i in range(16):
            hidden = batch.masked[i].nonzero()[:, 0].tolist()
            assert batch.target[i][batch.target_valid[i]].tolist() == hidden
            assert batch.visible[i][batch.visible_valid[i]].tolist() == (~batch.masked[i]).nonzero()[:, 0].tolist()
        assert batch.weight.sum(1).tolist() == batch.n_target.tolist()
    plain = [Random(ratio=r).draw(VIDEO, draws(1)) for r in (0.5, 0.9)]
    with pytest.raises(ValueError, match=r"got 156 to 784; .*masks.Padded"):
        MaskBatch.concatenated(plain)


def test_a_batch_is_cut_to_its_shortest_row() -> None:
    whole = Padded(mask=Random(ratio=Changing())).draw(VIDEO, draws(16, progress=1.0))
    batch = whole.cut()
    assert (batch.visible.shape, batch.target.shape, batch.weight.shape) == ((16, 392), (16, 392), (16, 392))
    assert torch.equal(batch.visible, whole.visible[:, :392])
    assert torch.equal(batch.target, whole.target[:, :392])
    assert torch.equal(batch.weight, whole.weight[:, :392])
    assert (batch.n_visible, batch.n_target) == (None, None)
    for i in range(16):
        assert (~batch.masked[i]).nonzero()[:, 0].tolist() == batch.visible[i].tolist()
    plain = Random(ratio=0.5).draw(VIDEO, draws(2))
    assert plain.cut() is plain


def at_step(step: int, key: str, view: int = 0) -> Draw:
    return Draw.of(0, 0, key, view, Place(step=step), Cues())


def test_cutting_makes_v_jepas_batches() -> None:
    mask = Padded(mask=ByView(masks=(MultiBlock(), MultiBlock(blocks=2, scale=(0.7, 0.7)))))
    plane = TokenGrid(axes=("t", "h", "w"), shape=(1, 14, 14), patch=(1, 1, 1))
    hidden = np.empty((2, 12))
    for step in range(12):
        batch = mask.draw(plane, [at_step(step, f"{step} {row}", view) for row in range(24) for view in range(2)])
        for view in range(2):
            hidden[view, step] = batch.rows(slice(view, None, 2)).cut().masked.float().mean()
    np.testing.assert_allclose(hidden.mean(1), [0.76, 0.93], atol=0.03)  # of the published collator, batches of 24


def block_size(hidden: np.ndarray, blocks: int) -> tuple[int, int] | None:
    """The size of the blocks of a plane, if no two of them have a row or a column in common."""
    rows, columns = (int(hidden.any(axis).sum()) for axis in (1, 0))
    apart = blocks * int(hidden.sum()) == rows * columns
    return (rows // blocks, columns // blocks) if apart else None


def test_sizes_of_blocks_are_coupled_on_request() -> None:
    plane, equal = TokenGrid(axes=("t", "h", "w"), shape=(1, 60, 60), patch=(1, 1, 1)), {}
    for coupled in (False, True):
        sizes = []
        for step in range(60):
            masks = [MultiBlock(blocks=n, scale=(0.02, 0.02), aspect=(0.25, 4.0), coupled=coupled) for n in (1, 2)]
            maps = [mask.hide(plane, at_step(step, str(step))).reshape(60, 60) for mask in masks]
            sizes.append([block_size(own, mask.blocks) for own, mask in zip(maps, masks, strict=True)])
        known = [pair for pair in sizes if None not in pair]
        assert len(known) > 10
        assert len({pair[0] for pair in known}) > 3
        equal[coupled] = sum(one == other for one, other in known) / len(known)
    assert equal[True] == 1
    assert equal[False] < 0.5
    both = MASKS["v-jepa"]().mask.masks  # of one seed in the authors' collator (facebookresearch/jepa 51c59d5)
    assert [(mask.blocks, mask.coupled) for mask in both] == [(8, True), (2, True)]


def test_restore_undoes_visible_then_hidden() -> None:
    batch = Random(ratio=0.75).draw(VIDEO, draws(3))
    together = torch.cat([batch.visible, batch.target], dim=1)
    assert torch.equal(together.gather(1, batch.restore), torch.arange(1568).expand(3, -1))
