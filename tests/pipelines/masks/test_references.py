"""Block masks against independent code: BEiT's generator as Hugging Face ships it for FLAVA, and slow JEPAs."""

import random
from collections.abc import Iterator
from dataclasses import replace
from math import sqrt

import numpy as np
import numpy.typing as npt
import pytest

from maskstream.pipelines.masks import Block, BlockMaskBatch, Curriculum, MultiBlock, Padded, TargetBlocks, UniformCount
from maskstream.pipelines.masks.core import TokenGrid
from maskstream.pipelines.masks.core.scheme import square

from .mask_table import CLIP, IMAGE, draws_of, grid_of

COUNT, STEPS = 1200, 100
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


def slow_target_blocks(
    rng: np.random.Generator, number: float, of_context: float, mask: TargetBlocks, h: int, w: int
) -> tuple[Maps, Maps]:
    """The targets and the context of I-JEPA's collator (section 3), token by token, at every place of the plane; blocks
    are stretched with it. `strips`: the context has no row and no column of a target.
    """

    def block(low: float, high: float, narrow: float, wide: float, u: float) -> tuple[int, int]:
        area, aspect = int(h * w * (low + u * (high - low))), (narrow + u * (wide - narrow)) * h / w
        return min(round(sqrt(area * aspect)), h - 1), min(round(sqrt(area / aspect)), w - 1)

    def filled(size: tuple[int, int]) -> set[tuple[int, int]]:
        top, left = int(rng.integers(h - size[0] + 1)), int(rng.integers(w - size[1] + 1))
        return {(top + i, left + j) for i in range(size[0]) for j in range(size[1])}

    size = block(*mask.scale, *mask.aspect, number)
    targets = set[tuple[int, int]]().union(*(filled(size) for _ in range(mask.blocks)))
    barred = targets
    if mask.strips:
        rows, columns = {i for i, _ in targets}, {j for _, j in targets}
        barred = {(i, j) for i in range(h) for j in range(w) if i in rows or j in columns}
    while len(seen := filled(block(*mask.context, 1.0, 1.0, of_context)) - barred) < mask.least:
        pass
    made = np.zeros((2, h, w))
    for plane, tokens in zip(made, (targets, seen), strict=True):
        for token in tokens:
            plane[token] = 1
    return made[0], made[1]


A_JEPAS = Curriculum()
SOUND = grid_of(16, 12, axes="time freq")


@pytest.mark.parametrize(
    ("mask", "grid"),
    [
        (TargetBlocks(scope="view"), IMAGE),
        (replace(A_JEPAS.easy, scope="view"), SOUND),
        (replace(A_JEPAS.hard, scope="view", least=1), SOUND),
    ],
    ids=["I-JEPA", "A-JEPA, easy", "A-JEPA, hard"],
)
def test_target_blocks_are_those_of_plain_loops(mask: TargetBlocks, grid: TokenGrid) -> None:
    rng = np.random.default_rng(3)
    drawn = [mask.maps(grid, draw) for draw in draws_of(grid, [str(i) for i in range(COUNT)])]
    slow = [slow_target_blocks(rng, *rng.random(2), mask, *grid.shape) for _ in range(COUNT)]
    check_alike(
        np.stack([one.target for one in drawn if one.target is not None]).reshape(COUNT, *grid.shape).astype(float),
        np.stack([one[0] for one in slow]),
    )
    check_alike(
        np.stack([~one.hidden for one in drawn]).reshape(COUNT, *grid.shape).astype(float),
        np.stack([one[1] for one in slow]),
    )


def test_a_curriculum_goes_from_blocks_to_strips_with_whole_batches() -> None:
    grid, mask = grid_of(64, 8, axes="time freq"), Padded(mask=A_JEPAS)
    for progress in (0.0, 0.1, 0.5, 1.0):
        hard = 0
        for step in range(STEPS):
            one, other = (
                mask.draw(grid, draws_of(grid, keys, progress=progress, step=step)) for keys in (["a", "b"], ["c"])
            )
            assert isinstance(one, BlockMaskBatch)
            assert isinstance(other, BlockMaskBatch)
            assert one.blocks.shape[1:] == other.blocks.shape[1:], "the same for samples of another rank"
            hidden, hard = one.masked[0].view(64, 8), hard + (one.blocks.shape[1] == 3)
            for block in one.blocks[0]:
                assert bool(hidden.flatten()[block].all())
                if one.blocks.shape[1] == 3:
                    assert bool(hidden[block // 8].all() & hidden[:, block % 8].all()), "neither a time nor a frequency"
        chance = min(1.0, sqrt(progress * (1 - 0.01**2)) + 0.01**2)
        assert abs(hard / STEPS - chance) <= 4 * sqrt(chance * (1 - chance) / STEPS) + 1 / STEPS


def test_the_blocks_of_a_batch_have_one_size_and_its_contexts_none_of_their_tokens() -> None:
    batch = Padded(mask=TargetBlocks()).draw(IMAGE, draws_of(IMAGE, [str(i) for i in range(40)]))
    assert isinstance(batch, BlockMaskBatch)
    for row, masked, target, count in zip(batch.blocks, batch.masked, batch.target, batch.n_target, strict=True):
        for block in row:
            places = np.stack(np.divmod(block.numpy(), 14))
            sides = places.max(1) - places.min(1) + 1
            assert sides.prod() == len(block) == len(set(block.tolist()))
        assert sorted(set(row.flatten().tolist())) == target[:count].tolist()
        assert bool(masked[row].all())
        assert int((~masked).sum()) >= 11
    one, other = batch.rows(slice(0, 3)), batch.rows(slice(3, None))
    assert BlockMaskBatch.concatenated([one, other]).blocks.equal(batch.blocks)


@pytest.mark.parametrize("side", [2, 3, 4])
def test_every_plane_shows_a_token(side: int) -> None:
    grid = square(side)
    batch = Padded(mask=TargetBlocks()).draw(grid, draws_of(grid, [str(i) for i in range(30)]))
    assert int((~batch.masked).sum(1).min()) >= 1


def test_blocks_of_several_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="blocks of a batch must have the same size"):
        Padded(mask=TargetBlocks(scope="view")).draw(IMAGE, draws_of(IMAGE, [str(i) for i in range(20)]))


def test_blocks_of_a_spectrogram_are_those_of_a_picture_of_its_tokens() -> None:
    sounds = TokenGrid(axes=("time", "freq"), shape=IMAGE.shape, patch=IMAGE.patch)
    one, other = (Padded(mask=TargetBlocks()).draw(grid, draws_of(IMAGE, ["a", "b"])) for grid in (IMAGE, sounds))
    assert isinstance(one, BlockMaskBatch)
    assert isinstance(other, BlockMaskBatch)
    assert one.blocks.equal(other.blocks)
    assert one.masked.equal(other.masked)
