"""Masks of structure: voxels, meshes, skeletons, scores, and several parts of one sample."""

from dataclasses import replace
from fractions import Fraction
from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskstream.pipelines.masks import (
    H36M_LIMB_PAIRS,
    H36M_LIMBS,
    Cues,
    Draw,
    Joint,
    Joints,
    Limbs,
    Mask,
    MeshNodes,
    Padded,
    Random,
    TokenGrid,
    TopScores,
    Uniform,
    VoxelAware,
    WholeWords,
    submesh,
)
from maskstream.pipelines.masks.patterns.frames import draw_orders
from maskstream.pipelines.stream.rng import Place

from .texts import text, token_grid


def grid_of(axes: str, *shape: int) -> TokenGrid:
    return TokenGrid(axes=tuple(axes.split()), shape=shape, patch=(1,) * len(shape))


def draw_of(key: object, cues: Cues | None = None, *, view: int = 0, step: int = 0, part: str = "") -> Draw:
    return Draw.of(0, 0, str(key), view, Place(step=step), cues or Cues(), part=part)


VOXELS = grid_of("x y z", 8, 8, 8)
SKELETON = grid_of("frame joint", 243, 16)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 512), st.integers(0, 100), st.integers(0, 100), st.integers(0, 99))
def test_voxels_of_two_ratios(filled: int, front: int, back: int, key: int) -> None:
    occupied = np.random.default_rng(key).permutation(512) < filled
    mask = VoxelAware(foreground=front / 100, background=back / 100)
    visible = ~mask.hide(VOXELS, draw_of(key, Cues(occupied=occupied)))
    n_f = min(max(1, ceil(Fraction(filled * (100 - front), 100))), filled)
    assert visible[occupied].sum() == n_f
    assert visible[~occupied].sum() == ceil(Fraction((512 - filled) * (100 - back), 100))
    for total in (0.0, 0.25, 0.9, 0.985, 1.0):
        fixed = ~replace(mask, total=total).hide(VOXELS, draw_of(key, Cues(occupied=occupied)))
        assert fixed.sum() == 512 * (1000 - round(total * 1000)) // 1000
        room = fixed.sum() - n_f
        assert fixed[~occupied].sum() == min(max(room, 0), 512 - filled)


def test_voxels_in_batches() -> None:
    grid = grid_of("x y z", 32, 32, 32)
    rng = np.random.default_rng(0)
    cues = [Cues(occupied=rng.permutation(32768) < n) for n in (500, 900, 1500)]
    draws = [draw_of(i, c) for i, c in enumerate(cues)]
    with pytest.raises(ValueError, match="equally many visible tokens"):
        VoxelAware().draw(grid, draws)
    ragged = Padded(mask=VoxelAware()).draw(grid, draws)
    assert ragged.n_visible.tolist() == [25 + 323, 45 + 319, 75 + 313]
    static = VoxelAware(total=0.985).draw(grid, draws)
    assert static.visible.shape == (3, 491)
    kept = torch.from_numpy(np.array([c.occupied for c in cues])).gather(1, static.visible).sum(1)
    assert kept.tolist() == [25, 45, 75]


def test_every_voxel_of_a_kind_is_equally_likely() -> None:
    occupied = np.arange(512) % 4 == 0
    mask = VoxelAware(foreground=0.75, background=0.9)
    hits = sum((~mask.hide(VOXELS, draw_of(i, Cues(occupied=occupied)))).astype(int) for i in range(2000))
    for kind, share in ((occupied, 32 / 128), (~occupied, 39 / 384)):
        z = (hits[kind] - 2000 * share) / np.sqrt(2000 * share * (1 - share))
        assert np.abs(z).max() < 4.8
        assert abs((z**2).sum() - kind.sum()) < 4.5 * np.sqrt(2 * kind.sum())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(0, 120), st.integers(0, 100), st.integers(0, 2**32))
def test_submeshes(n: int, edge_count: int, percent: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    edges, kinds = rng.integers(n, size=(2, edge_count)), rng.integers(0, 7, n)
    mask = MeshNodes(ratio=percent / 100, protect=(4, 6))
    masked = mask.hide(grid_of("node", n), draw_of(seed, Cues(kinds=kinds)))
    free = ~np.isin(kinds, (4, 6))
    assert not masked[~free].any()
    assert (~masked)[free].sum() == int(free.sum()) * (100 - percent) // 100
    left = submesh(masked, edges)
    assert left.nodes.tolist() == [i for i in range(n) if not masked[i]]
    expected = [i for i, (a, b) in enumerate(edges.T) if not masked[a] and not masked[b]]
    assert left.kept.tolist() == expected
    assert np.array_equal(left.nodes[left.edges], edges[:, expected])
    assert left.edges.shape == (2, len(expected))


def test_meshes_of_any_kind_of_nodes() -> None:
    grid = grid_of("node", 1000)
    assert MeshNodes().needs == frozenset()
    assert MeshNodes(protect=(6,)).needs == {"kinds"}
    batch = MeshNodes().draw(grid, [draw_of(i) for i in range(4)])
    assert batch.visible.shape == (4, 600)
    walls = Cues(kinds=np.full(1000, 6))
    assert not MeshNodes(ratio=1.0, protect=(6,)).hide(grid, draw_of(0, walls)).any()
    with pytest.raises(ValueError, match="MeshNodes needs the mask input kinds"):
        MeshNodes(protect=(6,)).hide(grid, draw_of(0))
    for wrong in (np.array([[0, 1000], [1, 2]]), np.array([[-1], [0]]), np.zeros((3, 4), dtype=np.int64)):
        with pytest.raises(ValueError, match="pairs of node numbers from 0 to 999"):
            submesh(np.zeros(1000, dtype=bool), wrong)


def test_mpm_hides_72_percent() -> None:
    batch = Joints().draw(SKELETON, [draw_of(i) for i in range(8)])
    masked = batch.masked.view(8, 243, 16)
    per_frame = masked.sum(2)
    assert ((per_frame == 16).sum(1) == 145).all()
    assert ((per_frame == 5).sum(1) == 98).all()
    assert abs(float(masked.double().mean()) - 0.723) < 0.0005
    assert batch.visible.shape == (8, 98 * 11)
    of_17 = Joints().draw(grid_of("frame joint", 243, 17), [draw_of(0)]).masked
    assert abs(float(of_17.double().mean()) - 0.715) < 0.0005
    assert not torch.equal(masked[0], masked[1])


def test_joints_are_equally_likely_and_frames_independent_of_them() -> None:
    grid = grid_of("frame joint", 6, 8)
    masked = Joints(frames=0.5, joints=3).draw(grid, [draw_of(i) for i in range(3000)]).masked.view(-1, 6, 8).numpy()
    whole = masked.all(2)
    for hits, share in ((whole.sum(0), 0.5), (masked[~whole].sum(0), 3 / 8)):
        count = 3000 if share == 0.5 else len(masked[~whole])
        z = (hits - count * share) / np.sqrt(count * share * (1 - share))
        assert np.abs(z).max() < 4.5
    clip = Joints(frames=0.5, joints=3, per="clip").draw(grid, [draw_of(i) for i in range(20)]).masked.view(-1, 6, 8)
    for rows in clip.numpy():
        assert len({tuple(r) for r in rows[~rows.all(1)]}) == 1


def test_a_scope_shares_joints() -> None:
    def mask(scope: str, key: int, view: int, step: int, part: str = "2d") -> bytes:
        return Joints(scope=scope).hide(SKELETON, draw_of(key, view=view, step=step, part=part)).tobytes()

    assert mask("batch", 1, 0, 5) == mask("batch", 2, 1, 5)
    assert mask("batch", 1, 0, 5) != mask("batch", 1, 0, 6)
    assert mask("batch", 1, 0, 5) != mask("batch", 1, 0, 5, part="3d")  # drawn for each, as published
    assert mask("sample", 1, 0, 5) == mask("sample", 1, 1, 6)
    assert len({mask("sample", 1, 0, 5), mask("sample", 2, 0, 5), mask("view", 1, 0, 5), mask("view", 1, 1, 5)}) == 4


def test_limbs() -> None:
    grid = grid_of("frame joint", 9, 17)
    draws = [draw_of(i) for i in range(2000)]
    for mask, groups, size in ((Limbs(), H36M_LIMBS, 3), (Limbs(limbs=H36M_LIMB_PAIRS, joints=6), H36M_LIMB_PAIRS, 6)):
        masked = mask.draw(grid, draws).masked.view(-1, 9, 17)
        assert (masked == masked[:, :1]).all()
        rows = [tuple(np.flatnonzero(r).tolist()) for r in masked[:, 0].numpy()]
        assert {len(r) for r in rows} == {size}
        counts = [rows.count(g) for g in groups]
        assert np.abs(np.array([*counts, 2000 - sum(counts)]) - 400).max() < 4.5 * np.sqrt(400 * 0.8)
    only = Limbs(limbs=((0, 2), (1,)), joints=0)
    shown = {tuple(only.hide(grid_of("frame joint", 1, 3), draw_of(i)).tolist()) for i in range(40)}
    assert shown == {(True, False, True), (False, True, False)}


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 100), st.integers(0, 2**32))
def test_top_scores_are_sticky(n: int, count: int, percent: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permutation(n).astype(np.float32)
    scores[rng.random(n) < 0.2] = -np.inf
    grid, maskable = grid_of("token", n), int((scores > -np.inf).sum())
    for mask, number in (
        (TopScores(count=count), min(count, maskable)),
        (TopScores(ratio=percent / 100), percent * maskable // 100),
    ):
        hidden = mask.hide(grid, draw_of(0, Cues(scores=scores)))
        top = torch.topk(torch.from_numpy(scores), number).indices
        assert set(np.flatnonzero(hidden).tolist()) == set(top.tolist())
        before = hidden
        for level in (number + 1, number + 3):
            again = rng.permutation(n).astype(np.float32)
            again[scores == -np.inf] = -np.inf
            after = TopScores(count=level).hide(grid, draw_of(1, Cues(scores=again, hidden=before)))
            new = np.where(before, -np.inf, again)
            assert (after >= before).all()
            assert after.sum() == min(level, maskable)
            assert set(np.flatnonzero(after & ~before)) == set(np.argsort(-new)[: int((after & ~before).sum())])
            before = after
        less = TopScores(count=0).hide(grid, draw_of(1, Cues(scores=scores, hidden=before)))
        assert np.array_equal(less, before)


def test_top_scores_of_texts_and_of_equal_scores() -> None:
    cues = Cues(words=np.array([-1, 0, 1, 2, -1, -2]), scores=np.array([9, 1, 1, 1, 9, 9], dtype=np.float32))
    mask = TopScores(ratio=0.7)
    assert np.flatnonzero(mask.hide(token_grid(6), draw_of(0, cues))).tolist() == [1, 2]
    assert np.flatnonzero(mask.hide(token_grid(6), draw_of(1, cues))).tolist() == [1, 2]
    with pytest.raises(ValueError, match="got 1 NaN among 6"):
        mask.hide(token_grid(6), draw_of(0, replace(cues, scores=np.array([0, 1, np.nan, 3, 4, 5]))))


def test_the_parts_of_a_sample() -> None:
    pair = Joint(parts={"image": Random(ratio=0.75), "text": Padded(mask=WholeWords(ratio=0.15))})
    grids = {"image": grid_of("h w", 18, 18), "text": token_grid(32)}
    cues = [text(32, np.random.default_rng(i)) for i in range(3)]
    draws = {
        "image": [draw_of(i, part="image") for i in range(3)],
        "text": [draw_of(i, c, part="text") for i, c in enumerate(cues)],
    }
    assert pair.needs == {"image": frozenset(), "text": {"words"}}
    assert not pair.needs_progress
    batches = pair.draw(grids, draws)
    assert batches["image"].visible.shape == (3, 81)
    assert batches["text"].n_target.tolist() == [batches["text"].masked[i].sum() for i in range(3)]
    alone = Padded(mask=WholeWords(ratio=0.15)).draw(
        grids["text"], [draw_of(i, c, part="text") for i, c in enumerate(cues)]
    )
    assert torch.equal(batches["text"].masked, alone.masked)
    assert draw_of(0, part="image").rng.random() != draw_of(0, part="text").rng.random() != draw_of(0).rng.random()
    schedule = Uniform(scope="sample")
    both = Joint(parts={"rgb": Padded(mask=Random(ratio=schedule)), "depth": Padded(mask=Random(ratio=schedule))})
    planes = both.draw(dict.fromkeys(both.parts, grids["image"]), {p: [draw_of(7, part=p)] for p in both.parts})
    assert planes["rgb"].n_visible == planes["depth"].n_visible
    assert not torch.equal(planes["rgb"].masked, planes["depth"].masked)
    with pytest.raises(ValueError, match=r"draws must have the parts \['image', 'text'\], got \['text'\]"):
        pair.draw(grids, {"text": []})


def test_random_orders_are_orders_and_uniform() -> None:
    orders = draw_orders(6000, 4, np.random.default_rng(0))
    names, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(names) == 24
    assert ((counts - 250) ** 2 / 250).sum() < 23 + 4.5 * np.sqrt(46)
    assert (np.sort(draw_orders(3, 3000, np.random.default_rng(0))) == np.arange(3000)).all()
    assert draw_orders(2, 1, np.random.default_rng(0)).tolist() == [[0], [0]]
    assert draw_orders(2, 0, np.random.default_rng(0)).shape == (2, 0)


def test_wrong_grids_are_refused() -> None:
    masks: list[Mask] = [VoxelAware(), MeshNodes(), Joints(), Limbs()]
    for mask in masks:
        with pytest.raises(ValueError, match=r"needs a grid with the axes .*, got \('h', 'w'\)"):
            mask.hide(grid_of("h w", 4, 4), draw_of(0))
    with pytest.raises(ValueError, match="hides 5 joints per frame, got a grid of 4"):
        Joints().hide(grid_of("frame joint", 3, 4), draw_of(0))
    with pytest.raises(ValueError, match="needs a grid of 17 joints or more, got 16"):
        Limbs().hide(SKELETON, draw_of(0))
    with pytest.raises(ValueError, match=r"needs the mask input occupied with shape \(512,\), got \(7,\)"):
        VoxelAware().hide(VOXELS, draw_of(0, Cues(occupied=np.ones(7, dtype=bool))))
