"""Flow as colours: which direction and length has which, and where there is none."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from maskstream.pages.figures.pictures import HATCH_DARK, HATCH_LIGHT, draw_flow_picture, wheel
from maskstream.pipelines.flow.base import Flow
from maskstream.pipelines.flow.picture import choose_flow_scale, paint_motion

from ..pipelines.clips import GRID, make_batch
from .pages import Page, decode, video_page


@pytest.mark.parametrize(
    ("motion", "colour"),
    [((1, 0), (255, 0, 0)), ((0, 1), (128, 255, 0)), ((-1, 0), (0, 255, 255)), ((0, -1), (127, 0, 255))],
)
def test_hue_is_the_direction_of_motion(motion, colour):
    full = paint_motion(np.array(motion, dtype=np.float32), 1.0)
    np.testing.assert_allclose(full.astype(int), colour, atol=1)
    np.testing.assert_array_equal(paint_motion(5 * np.array(motion, dtype=np.float32), 1.0), full)
    half = paint_motion(0.5 * np.array(motion, dtype=np.float32), 1.0)
    np.testing.assert_allclose(half.astype(int), (np.array(colour) + 255) / 2, atol=1)


def test_colours_are_those_of_hsv():
    motion = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    hsv = np.zeros((1, 400, 3), dtype=np.float32)
    hsv[0, :, 0] = np.degrees(np.arctan2(motion[:, 1], motion[:, 0])) % 360
    hsv[0, :, 1] = np.minimum(np.linalg.norm(motion, axis=1) / 2.0, 1)
    hsv[0, :, 2] = 1
    expected = 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]
    np.testing.assert_allclose(paint_motion(motion, 2.0), expected, atol=1.5)


def test_backward_flow_is_shown_as_the_motion_of_what_is_seen():
    came_from_the_left = np.zeros((4, 4, 2), dtype=np.float32)
    came_from_the_left[..., 0] = -3.0
    picture = draw_flow_picture(came_from_the_left, np.ones((4, 4), dtype=bool), 3.0, (8, 8))
    assert (picture == (255, 0, 0)).all()


def test_cells_without_a_vector_are_hatched_and_all_others_are_not():
    vectors = np.full((4, 4, 2), 2.0, dtype=np.float32)
    vectors[3, 3] = np.nan
    valid = np.ones((4, 4), dtype=bool)
    valid[0, 1] = False
    picture = draw_flow_picture(vectors, valid, 4.0, (64, 64))
    grey = (picture == picture[..., :1]).all(-1) & np.isin(picture[..., 0], (HATCH_DARK, HATCH_LIGHT))
    expected = valid & np.isfinite(vectors).all(-1)
    np.testing.assert_array_equal(grey, ~expected.repeat(16, 0).repeat(16, 1))
    assert len(np.unique(picture[:16, 16:32, 0])) == 2
    assert (picture[~grey] == picture[32, 32]).all()


@pytest.mark.parametrize("size", [(8, 8), (64, 64)])
def test_flow_finer_or_coarser_than_the_picture(size):
    picture = draw_flow_picture(np.zeros((32, 32, 2), dtype=np.float32), np.ones((32, 32), dtype=bool), 1.0, size)
    assert picture.shape == (*size, 3)
    assert (picture == 255).all()


def test_the_scale_is_a_round_number_over_nearly_all_vectors():
    vectors = np.random.default_rng(0).normal(scale=9.0, size=(7, 16, 16, 2)).astype(np.float32)
    valid = np.ones((7, 16, 16), dtype=bool)
    scale = choose_flow_scale(vectors, valid)
    lengths = np.linalg.norm(vectors, axis=-1)
    assert (lengths <= scale).mean() >= 0.985
    assert scale in (30.0, 40.0)
    vectors[0, 0, 0] = 1e6
    valid[0, 0, 0] = False
    assert choose_flow_scale(vectors, valid) == scale


@pytest.mark.parametrize("length", [0.0, 0.01, 1.0, 1.2, 7.0, 9.9, 10.0, 11.0, 480.0])
def test_the_scale_is_at_least_the_vectors_and_at_most_half_as_much_again(length):
    vectors = np.zeros((1, 4, 4, 2), dtype=np.float32)
    vectors[..., 1] = length
    scale = choose_flow_scale(vectors, np.ones((1, 4, 4), dtype=bool))
    assert max(length, 1.0) * (1 - 1e-6) <= scale <= 1.51 * max(length, 1.0)


def test_each_frame_stands_over_the_flow_from_the_frame_before_it():
    batch = make_batch(1)
    vectors = torch.zeros(1, 7, 8, 8, 2)
    motions = [(-4.0, 0.0), (0.0, -4.0), (4.0, 0.0), (0.0, 4.0), (0.0, 0.0), (-4.0, 0.0), (0.0, 4.0)]
    for step, motion in enumerate(motions):
        vectors[0, step] = torch.tensor(motion)
    uncut = torch.zeros(1, 7, dtype=torch.bool)
    flow = Flow(vectors=vectors, valid=torch.ones(1, 7, 8, 8, dtype=torch.bool), cuts=uncut)
    page = Page(video_page(replace(batch, flow=flow), GRID, title="t", facts={}))
    pictures = {attrs["alt"]: attrs["src"] for tag, attrs in page.tags if tag == "img"}
    assert "flow 1" not in pictures
    for step, motion in enumerate(motions):
        mean = decode(pictures[f"flow {step + 2}"]).reshape(-1, 3).mean(0)
        np.testing.assert_allclose(mean, paint_motion(-np.array(motion, dtype=np.float32), 4.0), atol=12)


def test_flow_without_any_vector_is_all_hatched():
    batch = make_batch(1)
    batch = replace(batch, flow=replace(batch.flow, valid=torch.zeros(1, 7, 8, 8, dtype=torch.bool)))
    page = Page(video_page(batch, GRID, title="t", facts={}))
    assert "Hatched cells (100.0 %) have no vector" in page.text
    assert "full colour is 1 px" in page.text


@pytest.mark.parametrize(("without", "first"), [([], "4"), ([4], "3"), ([2, 3, 4], "5"), (range(8), "4")])
def test_the_player_begins_at_the_middlemost_frame_with_flow(without, first):
    batch = make_batch(1)
    valid = torch.ones(1, 7, 8, 8, dtype=torch.bool)
    valid[0, [frame - 1 for frame in without if frame]] = False
    page = Page(video_page(replace(batch, flow=replace(batch.flow, valid=valid)), GRID, title="t", facts={}))
    assert page.attributes("input", "value") == [first]


def test_page_states_scale_and_missing_share_of_the_flow():
    page = Page(video_page(make_batch(1), GRID, title="t", facts={}))
    assert "full colour is 4 px or more" in page.text
    assert "Hatched cells (6.2 %)" in page.text


def test_the_legend_has_at_each_place_the_colour_of_motion_towards_it():
    disc = wheel(64)
    assert disc.shape == (64, 64, 4)
    assert disc[0, 0, 3] == 0
    assert (disc[31:33, 31:33, :3] > 235).all()
    for angle in np.linspace(0, 2 * math.pi, 12, endpoint=False):
        place = 32 + 30 * np.array([math.cos(angle), math.sin(angle)])
        towards = np.array([math.cos(angle), math.sin(angle)], dtype=np.float32) * 30 / 32
        x, y = place.astype(int)
        np.testing.assert_allclose(disc[y, x, :3].astype(int), paint_motion(towards, 1.0), atol=16)
