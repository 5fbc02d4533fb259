"""What each pattern of pictures, clips and spectrograms promises beyond its counts."""

import numpy as np
import numpy.typing as npt
import pytest
import torch

from maskstream.pipelines.masks import (
    SCHEMES,
    Block,
    Box,
    ByView,
    Complementary,
    Context,
    Cues,
    Draw,
    DropAndMask,
    FilledStrips,
    Frames,
    Mask,
    MotionGuided,
    MultiBlock,
    Padded,
    PartDecoded,
    PerFrame,
    Random,
    Shared,
    Strips,
    TokenGrid,
    Tube,
    Uniform,
)

from .mask_table import CLIP, IMAGE, draws_of, grid_of

KEYS = [str(i) for i in range(40)]
AUDIO = grid_of(64, 8, axes="time freq")


def hidden(mask: Mask, grid: TokenGrid, view: int = 0, cues: Cues | None = None) -> npt.NDArray[np.bool_]:
    """Masks of 40 samples, bool (40, *grid.shape)."""
    draws = draws_of(grid, KEYS, lambda *_: cues or Cues(), view=view)
    return np.stack([mask.hide(grid, draw) for draw in draws]).reshape(-1, *grid.shape)


def test_tube_hides_the_same_places_along_any_axis() -> None:
    for axis, place in (("t", 1), ("h", 2), ("w", 3)):
        maps = hidden(Tube(ratio=0.5, axis=axis), CLIP)
        assert (maps == maps.take([0], axis=place)).all()
        assert 0 < maps[0].sum() < CLIP.size
    rgb_depth = grid_of(2, 14, 14, axes="modality h w")
    maps = hidden(Tube(ratio=0.75, axis="modality"), rgb_depth)
    assert (maps[:, 0] == maps[:, 1]).all()


def test_a_part_of_the_targets_is_decoded_each_as_likely_as_the_others() -> None:
    whole, grid = Tube(ratio=0.75), grid_of(4, 8, 8, axes="t h w")
    batch = PartDecoded(mask=whole, share=0.5).draw(grid, draws_of(grid, KEYS))
    assert torch.equal(batch.masked, whole.draw(grid, draws_of(grid, KEYS)).masked)
    assert batch.target.shape == (40, 96)
    assert batch.masked.gather(1, batch.target).all()
    assert batch.weight.eq(1).all()
    often = torch.zeros(grid.size).index_add(0, batch.target.flatten(), torch.ones(batch.target.numel()))
    hides = batch.masked.sum(dim=0)
    assert ((often - hides / 2).abs() <= 4 * (hides / 4).sqrt()).all()
    with pytest.raises(ValueError, match="above 0"):
        PartDecoded(share=0.0)
    (published,) = (scheme for scheme in SCHEMES if scheme.paper == "CrossMAE")
    n, hidden, kept = 196, 0.75, 0.25  # TonyLianLong/CrossMAE ed0677a: --mask_ratio 0.75 --kept_mask_ratio 0.25
    skipped = int(n * (hidden - kept))
    target = published.mask.draw(published.grid, draws_of(published.grid, KEYS)).target
    assert target.shape[1] == n - int(n * (1 - hidden)) - skipped


def test_frames_hide_whole_slices() -> None:
    for axis, place in (("t", 1), ("w", 3)):
        maps = np.moveaxis(hidden(Frames(ratio=0.75, axis=axis), CLIP), place, 1).reshape(40, CLIP.shape[place - 1], -1)
        assert (maps.all(2) == maps.any(2)).all()
    rows = hidden(Frames(ratio=0.5, axis="freq"), AUDIO)
    assert (rows.all(1) == rows.any(1)).all()
    assert (rows.all(1).sum(1) == 4).all()


def test_slices_of_per_frame_are_independent_and_may_have_ratios_of_their_own() -> None:
    maps = hidden(PerFrame(ratio=0.5), CLIP)
    assert not (maps[:, 0] == maps[:, 1]).all((1, 2)).any()
    counts = hidden(PerFrame(ratio=Uniform(low=0.0, high=1.0, scope="frame")), CLIP).sum((2, 3))
    assert min(len(set(c)) for c in counts.tolist()) > 4
    assert (np.diff(hidden(PerFrame(ratio=Uniform()), CLIP).sum((2, 3)), axis=1) == 0).all()
    assert (np.diff(hidden(Block(ratio=Uniform(scope="frame")), CLIP).sum((2, 3)), axis=1) != 0).any()


def test_context_frames_are_seen_and_the_rest_is_the_masks_own_clip() -> None:
    maps = hidden(Context(mask=PerFrame(ratio=0.7), frames=3), CLIP)
    assert not maps[:, :3].any()
    assert (maps[:, 3:].sum((2, 3)) == 196 - 58).all()
    later = grid_of(5, 14, 14, axes="t h w")
    assert (maps[:, 3:] == hidden(PerFrame(ratio=0.7), later)).all()
    tokens = Context(mask=DropAndMask(ratio=0.8), frames=1)
    batch = tokens.draw(CLIP, draws_of(CLIP, KEYS))
    assert batch.mask_token is not None
    assert not batch.mask_token[:, :196].any()
    assert batch.target.min() >= 196


def test_strips_are_whole_columns_and_rows_in_either_order_of_the_axes() -> None:
    visible = ~hidden(Strips(time=0.7, freq=0.3), AUDIO)
    columns, rows = visible.any(2), visible.any(1)
    assert (visible == columns[:, :, None] & rows[:, None, :]).all()
    assert set(columns.sum(1)) == {19}
    assert set(rows.sum(1)) == {5}
    turned = ~hidden(Strips(time=0.7, freq=0.3), grid_of(8, 64, axes="freq time"))
    assert (turned.transpose(0, 2, 1) == visible).all()
    assert set(hidden(Strips(time=0.5, freq=0.0), AUDIO).all(2).sum(1)) == {32}
    assert set(hidden(Strips(time=0.0, freq=0.5), AUDIO).all(1).sum(1)) == {4}


@pytest.mark.parametrize(
    ("ratio", "columns", "rows", "kept"), [(0.2, 8, 1, 409), (0.4, 17, 2, 307), (0.6, 26, 3, 204), (0.8, 35, 4, 102)]
)
def test_filled_strips_have_avsiams_numbers(ratio: float, columns: int, rows: int, kept: int) -> None:
    """Where the strips hide too little all of them are hidden, where they hide too much nothing else is."""
    maps = hidden(FilledStrips(ratio=ratio), AUDIO)
    assert set((~maps).sum((1, 2)).tolist()) == {kept}
    for one in maps:
        if (64 - columns) * (8 - rows) >= kept:
            assert one.all(1).sum() >= columns
            assert one.all(0).sum() >= rows
        else:
            others = one[:, np.argsort(one.sum(0))[:-rows]]
            assert others.any(1).sum() <= columns
    time = hidden(FilledStrips(ratio=ratio, time=1.0, freq=0.0), AUDIO)
    assert (time.all(2).sum(1) == int(64 * ratio)).all()


def test_boxes() -> None:
    grid = grid_of(24, 24, axes="h w")
    cases = {  # the box, and the rows and columns that it covers
        (0.25, 0.5, 0.5, 0.75): ((11, 19), (5, 13)),  # x 6 to 12, y 12 to 18, a margin of 1
        (0.26, 0.51, 0.49, 0.74): ((11, 18), (5, 12)),  # truncated: x 6 to 11, y 12 to 17
        (0.0, 0.0, 1.0, 1.0): ((0, 24), (0, 24)),
        (-0.5, 0.9, 0.1, 1.7): ((20, 24), (0, 3)),
        (0.5, 0.5, 0.5, 0.5): ((11, 13), (11, 13)),
        (1.1, 0.2, 1.4, 0.5): ((0, 0), (0, 0)),
    }
    for box, ((top, bottom), (left, right)) in cases.items():
        maps = hidden(Box(), grid, cues=Cues(box=np.array(box)))
        inner = maps[:, top:bottom, left:right].sum((1, 2))
        n = (bottom - top) * (right - left)
        assert set(inner.tolist()) == {n - n // 4}
        outside = 576 - n
        assert set((maps.sum((1, 2)) - inner).tolist()) == {outside - outside * 65 // 100}


def test_views_that_belong_together() -> None:
    by_view = ByView(masks=(None, Random(ratio=0.985), Random(ratio=0.5)))
    assert [int((~hidden(by_view, IMAGE, view=v)[0]).sum()) for v in range(4)] == [196, 2, 98, 196]
    shared = Shared(mask=Random(ratio=0.75))
    assert (hidden(shared, IMAGE) == hidden(shared, IMAGE, view=3)).all()
    assert (hidden(shared, IMAGE) != hidden(Random(ratio=0.75), IMAGE)).any()
    pairs = Complementary(mask=Random(ratio=0.25))
    first, second, third = (hidden(pairs, IMAGE, view=v) for v in range(3))
    assert (first == ~second).all()
    assert (first != third).any((1, 2)).all()
    assert first.sum() == 40 * 49
    both = ByView(masks=(None, DropAndMask(ratio=0.75)))
    batch = Padded(mask=both).draw(IMAGE, draws_of(IMAGE, ["a"]) + draws_of(IMAGE, ["a"], view=1))
    assert batch.n_visible is not None
    assert batch.mask_token is not None
    assert batch.n_visible.tolist() == [196, 98]
    assert batch.mask_token.sum(1).tolist() == [0, 49]


def test_drop_and_mask() -> None:
    grid = grid_of(16, 16, axes="h w")
    sizes = set()
    for step in range(40):
        batch = DropAndMask().draw(grid, draws_of(grid, KEYS[:3], step=step))
        assert batch.mask_token is not None
        assert batch.visible.shape == (3, 128)
        target = torch.zeros_like(batch.masked)
        target.scatter_(1, batch.target, True)
        assert (target == (batch.masked | batch.mask_token)).all()
        assert not (batch.masked & batch.mask_token).any()
        assert (batch.weight == 1).all()
        sizes.add(batch.target.shape[1])
    assert 128 <= min(sizes) < 150 < 200 < max(sizes) <= 256
    assert DropAndMask(ratio=0.7).draw(grid, draws_of(grid, KEYS)).target.shape == (40, 180)
    assert DropAndMask(ratio=0.1).draw(grid, draws_of(grid, KEYS)).target.shape == (40, 128)


def test_multi_block_leaves_a_place_visible() -> None:
    whole = MultiBlock(scale=(1.0, 1.0), aspect=(1.0, 1.0))
    maps = hidden(whole, CLIP)
    assert ((~maps).sum((1, 2, 3)) == 8).all()
    assert (maps == maps[:, :1]).all()
    part = hidden(MultiBlock(blocks=1, duration=(0.5, 0.5)), CLIP)
    assert (part.any((2, 3)).sum(1) == 4).all()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: Tube(axis="x").hide(CLIP, draw()), "Tube needs a grid with an axis 'x', got"),
        (lambda: Frames(axis="x").hide(CLIP, draw()), "Frames needs a grid with an axis 'x'"),
        (lambda: PerFrame().hide(AUDIO, draw()), "PerFrame needs a grid with an axis 't'"),
        (lambda: Context(frames=8).hide(CLIP, draw()), r"more than 8 context frames, got .*\(8, 14, 14\)"),
        (lambda: Context().hide(AUDIO, draw()), "whose first axis is t"),
        (lambda: Block().hide(AUDIO, draw()), "Block needs a grid with the axes"),
        (lambda: MultiBlock().hide(IMAGE, draw()), "MultiBlock needs a grid with the axes"),
        (lambda: Strips().hide(IMAGE, draw()), r"Strips needs a grid with the axes \('time', 'freq'\) or"),
        (lambda: FilledStrips().hide(IMAGE, draw()), "FilledStrips needs a grid with the axes"),
        (lambda: Box().hide(IMAGE, draw()), "Box needs the mask input box"),
        (lambda: Box().hide(CLIP, draw()), "Box needs a grid with the axes"),
        (lambda: Box().hide(IMAGE, draw([0.5, 0, 0.4, 1])), "a box must have x0 <= x1"),
        (lambda: Box().hide(IMAGE, draw([0, 0, np.nan, 1])), "a box must have x0 <= x1"),
        (lambda: Box().hide(IMAGE, draw([0, 0, 1])), "a box must have x0 <= x1"),
        (lambda: Shared().hide(IMAGE, Draw(rng=np.random.default_rng(0))), "a random number shared by a sample"),
        (lambda: Box().draw(IMAGE, [draw([0, 0, 0.2, 1]), draw([0, 0, 1, 1])]), "equally many visible tokens"),
        (lambda: Random(ratio=Uniform(scope="frame")).hide(IMAGE, draw()), "draws a ratio for each frame"),
        (lambda: Shared(mask=MotionGuided()), "MotionGuided reads flow, which differs from view to view"),
        (lambda: Complementary(mask=Box()), "Box reads box, which differs from view to view"),
    ],
)
def test_wrong_settings_grids_and_cues_are_refused(draw: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw()


def draw(box: list[float] | None = None) -> Draw:
    """A draw of some sample."""
    return draws_of(IMAGE, ["a"], lambda *_: Cues(box=None if box is None else np.array(box)))[0]


def test_parts_say_what_they_need() -> None:
    assert ByView(masks=(None, MotionGuided(), Box())).needs == {"flow", "box"}
    assert Padded(mask=Box()).needs == {"box"}
    assert Shared().needs == Context().needs == frozenset()
