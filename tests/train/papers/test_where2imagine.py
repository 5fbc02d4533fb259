"""Errors of waypoints: guesses are right on the walks that they assume, and a model learns to be better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maskstream.modalities.trajectory import figures
from maskstream.pages.report.drawn import make_sections
from maskstream.pipelines import TrajectoryData, VideoClip, masks
from maskstream.shards.format.manifest import Manifest
from maskstream.train.papers.where2imagine.evaluate import (
    KEPT_UP,
    LINEAR,
    MEAN,
    STRAIGHT,
    collect_held_out_clips,
    collect_known_guesses,
    evaluate,
    fit_median,
    keep_up,
    measure_errors,
    measure_motion,
)
from maskstream.train.papers.where2imagine.model import WaypointConfig

from ...pipelines.every_modality import write_split
from ...pipelines.small_walks import SPEED, TURN

AHEAD_S = 0.8
DATA = TrajectoryData(clip=VideoClip(frames=3, stride=2, size=32), ahead_s=AHEAD_S, patch=16)
SMALL = WaypointConfig(width=32, depth=1, heads=2, ahead_s=AHEAD_S)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split("trajectory", tmp_path_factory.mktemp("walks"))


def test_the_last_motion_kept_up_is_right_on_an_arc_and_straight_on_is_not(split: Path) -> None:
    for batch in (
        collect_held_out_clips(DATA, Manifest.load(split))[0],
        next(iter(DATA.loader(split, batch_size=15, device="cpu", seed=1))),
    ):
        arc = keep_up(batch, AHEAD_S, turning=True)
        # The speed is that of the chord, a little less than that of the arc.
        torch.testing.assert_close(arc, batch.waypoint, atol=2e-3, rtol=0)
        straight = keep_up(batch, AHEAD_S, turning=False)
        np.testing.assert_allclose(straight[:, 1], SPEED * AHEAD_S, rtol=2e-3)
        assert not straight[:, [0, 2]].any()
        far = measure_errors(straight, batch.waypoint)
        np.testing.assert_allclose(far[:, 1], np.rad2deg(TURN * AHEAD_S), rtol=1e-4)
    turns = batch.waypoint[:, 2].sign()
    assert {-1.0, 1.0} == set(turns.tolist())  # the second batch has mirrored clips


def test_angles_of_errors_go_the_short_way_round() -> None:
    made, true = torch.tensor([[0.0, 0.0, 3.0]]), torch.tensor([[3.0, 4.0, -3.0]])
    metres, degrees = measure_errors(made, true)[0].tolist()
    assert metres == pytest.approx(5)
    assert degrees == pytest.approx(np.rad2deg(2 * np.pi - 6), abs=1e-4)


def test_guesses_know_the_split(split: Path) -> None:
    clips = collect_held_out_clips(DATA, Manifest.load(split))
    mean, linear = collect_known_guesses(DATA, Manifest.load(split))
    torch.testing.assert_close(mean, clips[0].waypoint[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(measure_motion(clips[0], AHEAD_S) @ linear, clips[0].waypoint, atol=1e-4, rtol=0)


def test_a_linear_map_is_least_off_in_distance_and_not_in_squares() -> None:
    inputs = torch.tensor([[1.0]] * 5)
    outputs = torch.tensor([[0.0, 0.0, 0.0]] * 3 + [[8.0, 6.0, 0.0]] * 2)
    found = fit_median(inputs, outputs)
    np.testing.assert_allclose(found[0, :2], 0, atol=0.06)  # the median of the places; their mean is (3.2, 2.4)


def test_a_model_learns_the_arc_and_its_report_says_so(split: Path) -> None:
    model = SMALL.build(DATA.grids)
    loader = replace(DATA, mask=masks.Random(ratio=0.25)).loader(split, batch_size=15, device="cpu", seed=1, steps=90)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _, batch in zip(range(90), loader.repeat(), strict=False):
        loss = model.loss(batch).loss()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    loader.close()
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])
    found = evaluate(model.eval(), DATA, Manifest.load(split), 2)
    place, turn = found.scores
    assert set(place.baselines) == set(turn.baselines) == {STRAIGHT, KEPT_UP, MEAN, LINEAR}
    assert place.value < place.baselines[STRAIGHT]
    (section,) = make_sections(found.examples, figures(DATA, Manifest.load(split)), ())
    assert [card.figures[-1].kind for card in section.cards] == ["drawing"] * 2
    assert all("m off" in card.words for card in section.cards)


def test_a_hidden_token_changes_nothing_and_a_visible_one_does(split: Path) -> None:
    model = SMALL.build(DATA.grids).eval()
    batch = next(iter(replace(DATA, mask=masks.Random(ratio=0.5)).loader(split, batch_size=4, device="cpu", steps=9)))
    assert batch.mask is not None
    assert batch.depth is not None
    hidden = batch.mask.masked.view(4, 3, 2, 2).repeat_interleave(16, 2).repeat_interleave(16, 3)
    with torch.no_grad():
        first = model.waypoints(batch)
        other = replace(
            batch,
            video=torch.where(hidden[..., None], 255 - batch.video, batch.video),
            depth=torch.where(hidden, batch.depth + 1, batch.depth),
        )
        torch.testing.assert_close(model.waypoints(other), first)
        assert (model.waypoints(replace(batch, depth=batch.depth + 1)) - first).abs().max() > 1e-5


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"depth=False; set model\.depths=False"):
        SMALL.check(replace(DATA, depth=False))
    with pytest.raises(ValueError, match=r"model\.ahead_s=0\.8 must equal data\.ahead_s=2\.0"):
        SMALL.check(replace(DATA, ahead_s=2.0))
