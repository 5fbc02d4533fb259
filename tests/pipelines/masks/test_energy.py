"""The energy of tokens beside a reference in float64, and the mask that chooses by it."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskstream.pipelines.masks import ByEnergy, Cues, Draw, Random, TokenGrid, Tube, Uniform
from maskstream.pipelines.masks.patterns.token_energy import DEAD_ZONE, token_energy

GRID = TokenGrid.video(6, 24, 32, patch=8)


def noise(seed: int, *shape: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


def cues_of(frames: npt.NDArray[np.uint8], flow: float = 0.0, cuts: tuple[int, ...] = ()) -> Cues:
    pairs = len(frames) - 1
    return Cues(
        frames=frames, flow=np.full((pairs, 3, 4, 2), flow, dtype=np.float32), cuts=np.isin(np.arange(pairs), cuts)
    )


def draw_of(cues: Cues, key: str = "a") -> Draw:
    return replace(Draw.of(0, 0, key, 0, Draw(rng=np.random.default_rng()).place, Cues()), cues=cues)


def energy_of(cues: Cues, *, patch: int = 8, tubelet: int = 2, motion: float = 0.0) -> npt.NDArray[np.int64]:
    frames, flow, cuts = (cues.need(name, by="a test") for name in ("frames", "flow", "cuts"))
    return token_energy(frames, flow, cuts, tubelet=tubelet, patch=patch, motion=motion)


def expected(cues: Cues, patch: int, motion: float) -> npt.NDArray[np.float64]:
    """The energy of each frame but the first, float64 (T-1, H / patch, W / patch), pixel by pixel."""
    frames, flow = cues.need("frames", by="a test"), cues.need("flow", by="a test")
    grey = np.rint(frames @ np.array([0.299, 0.587, 0.114]))
    count, height, width = grey.shape
    found = np.zeros((count - 1, height // patch, width // patch))
    for pair in range(count - 1):
        cells = np.rint(flow[pair].astype(np.float64) * 16) / 16
        for y in range(height):
            for x in range(width):
                u, v = cells[y * cells.shape[0] // height, x * cells.shape[1] // width]
                x0, y0 = int(np.floor(x + u)), int(np.floor(y + v))
                was = 0.0
                for down in range(2):
                    for right in range(2):
                        share = (1 - abs(x + u - x0 - right)) * (1 - abs(y + v - y0 - down))
                        row, column = np.clip(y0 + down, 0, height - 1), np.clip(x0 + right, 0, width - 1)
                        was += share * grey[pair, row, column]
                rest = max(abs(grey[pair + 1, y, x] - was) - DEAD_ZONE, 0)
                found[pair, y // patch, x // patch] += rest**2 + motion**2 * (u * u + v * v)
    return found


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 99), st.sampled_from([4, 6, 8]), st.floats(0, 9), st.sampled_from([0.0, 2.0]))
def test_energy_is_what_the_moved_frame_leaves(seed: int, patch: int, reach: float, motion: float) -> None:
    flow = np.random.default_rng(seed).uniform(-reach, reach, (2, 3, 3, 2)).astype(np.float32)
    frames = (noise(seed, 3, 24, 24, 3) // 4).astype(np.uint8)
    cues = Cues(frames=frames, flow=flow, cuts=np.zeros(2, dtype=np.bool_))
    wanted = expected(cues, patch, motion)
    found = energy_of(cues, patch=patch, tubelet=1, motion=motion)
    np.testing.assert_allclose(found[1:], wanted, rtol=0.05, atol=2.0 * patch**2)  # grey and fetched levels are rounded
    assert (found[0] == found[1]).all()


def test_a_moved_picture_has_energy_at_its_border_alone() -> None:
    frames = np.empty((6, 24, 32, 3), dtype=np.uint8)
    wide = noise(1, 24, 80, 3)
    for t in range(6):
        frames[t] = wide[:, 2 * t : 2 * t + 32]  # what is at x was at x + 2
    cues = cues_of(frames)
    cues.need("flow", by="a test")[..., 0] = 2.0
    found = energy_of(cues)
    assert not found[:, :, :-1].any()
    assert (found[:, :, -1] > 0).all()
    assert (energy_of(cues_of(frames)) > 0).all()


def test_energy_at_cuts() -> None:
    frames = noise(2, 6, 24, 32, 3)
    whole = energy_of(cues_of(frames), tubelet=1)
    cut = energy_of(cues_of(frames, cuts=(2, 4)), tubelet=1)
    assert (cut[[1, 2, 4]] == whole[[1, 2, 4]]).all()
    assert (cut[3] == whole[4]).all()
    assert not cut[5].any()
    assert not energy_of(cues_of(np.repeat(frames[:1], 6, axis=0)), tubelet=1).any()


def test_flow_that_leads_anywhere_stays_inside() -> None:
    cues = cues_of(noise(3, 6, 24, 32, 3))
    for value in (1e30, -1e30, np.inf, -np.inf, np.nan, 31.97, -24.03):
        cues.need("flow", by="a test")[...] = value
        assert (energy_of(cues) >= 0).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9), st.integers(0, 100), st.sampled_from(["clip", "slice", "tube"]))
def test_the_tokens_of_most_energy_stay_visible(seed: int, percent: int, per: str) -> None:
    cues = cues_of(noise(seed, 6, 24, 32, 3), flow=1.3)
    energy = energy_of(cues).reshape(3, -1)
    for keep in ("most", "least"):
        mask = ByEnergy(ratio=percent / 100, per=per, keep=keep)  # type: ignore[arg-type]
        hidden = mask.hide(GRID, draw_of(cues)).reshape(3, -1)
        groups = {"clip": [(hidden.ravel(), energy.ravel())], "tube": [(hidden[0], energy.sum(0))]}
        groups["slice"] = list(zip(hidden, energy, strict=True))
        if per == "tube":
            assert (hidden == hidden[0]).all()
        for own, of in groups[per]:
            assert (~own).sum() == int((100 - percent) * own.size / 100)
            if own.any() and not own.all():
                shown, lost = (of[~own], of[own]) if keep == "most" else (-of[~own], -of[own])
                assert shown.min() >= lost.max()


def test_draws_by_energy() -> None:
    frames = noise(4, 6, 24, 32, 3)
    frames[:, :, 16:] = frames[0, :, 16:]  # half of each frame stands still
    cues = cues_of(frames)
    for sharpness, least, most in ((0.0, 0.40, 0.60), (0.05, 0.60, 0.95), (2.0, 1.0, 1.0)):
        mask = ByEnergy(ratio=0.75, sharpness=sharpness)
        shown = np.array([~mask.hide(GRID, draw_of(cues, str(n))) for n in range(200)]).reshape(200, 3, 3, 4)
        assert (shown.reshape(200, -1).sum(1) == 9).all()
        assert least <= shown[..., :2].sum() / shown.sum() <= most
        flipped = replace(mask, keep="least").hide(GRID, draw_of(cues)).reshape(3, 3, 4)
        assert sharpness < 1 or flipped[..., :2].all()


def test_a_mask_that_hides_first() -> None:
    cues = cues_of(noise(5, 6, 24, 32, 3))
    tube = Tube(ratio=0.5)
    for per in ("clip", "slice", "tube"):
        hidden = ByEnergy(ratio=0.75, per=per, first=tube).hide(GRID, draw_of(cues))  # type: ignore[arg-type]
        assert hidden[tube.hide(GRID, draw_of(cues))].all()
        assert (~hidden).sum() == 9
    with pytest.raises(ValueError, match=r"hides all but 18 of 36 tokens, but ratio=0\.25 shows 27"):
        ByEnergy(ratio=0.25, first=tube).hide(GRID, draw_of(cues))
    assert ByEnergy(first=Random()).needs == ByEnergy().needs == {"frames", "flow", "cuts"}
    frame = ByEnergy(ratio=Uniform(low=0.2, high=0.9, scope="frame"), per="slice").hide(GRID, draw_of(cues))
    assert len(set(frame.reshape(3, -1).sum(1).tolist())) > 1


def test_cues_of_another_size() -> None:
    cues = cues_of(noise(6, 6, 24, 32, 3))
    for grid in (TokenGrid.video(6, 24, 24, patch=8), TokenGrid.video(4, 24, 32, patch=8)):
        with pytest.raises(ValueError, match="needs at least two frames"):
            ByEnergy().hide(grid, draw_of(cues))
    with pytest.raises(ValueError, match="needs the mask input flow"):
        ByEnergy().hide(GRID, draw_of(replace(cues, flow=None)))
