"""The preview page: what it counts, what it darkens, what it colours, and that it is one safe file."""

import base64
import math
import os
import re
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import torch

from maskstream.pipelines.batch import Flow, MaskBatch, VideoBatch
from maskstream.pipelines.masks import Dual, MotionGuided, Random, TokenGrid, Tube, mask_batch
from maskstream.pipelines.preview import preview, preview_page, write_page
from maskstream.pipelines.preview.chart import axis_ticks, labels, line_chart, running_mean
from maskstream.pipelines.preview.flow_colours import (
    HATCH_DARK,
    HATCH_LIGHT,
    flow_picture,
    flow_scale,
    motion_colours,
    wheel,
)
from maskstream.pipelines.preview.page import picture_side
from maskstream.pipelines.preview.pictures import cell_size, darken, data_uri, token_pixels
from maskstream.pipelines.preview.tokens import ClipTokens, outline_path, runs_path
from maskstream.pipelines.video.clip import VideoClip
from maskstream.shards.errors import ShardError

GRID = TokenGrid.video(8, 64, 64)
HOSTILE = "<script>alert(1)</script>\"'&{{ 7 * 7 }}"
VOID = {"meta", "link", "img", "input", "br", "path"}


class Page(HTMLParser):
    """Fails on tags that do not close in order; keeps every tag with its attributes, and the text outside scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.stack, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def attributes(self, tag, name):
        return [attrs[name] for t, attrs in self.tags if t == tag and name in attrs]


def rngs(n):
    return [np.random.default_rng(i) for i in range(n)]


def make_batch(n=2, mask=None, flow=True):
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randint(0, 256, (n, 8, 8, 8, 3), generator=generator, dtype=torch.uint8)
    video = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)
    vectors = torch.zeros(n, 7, 8, 8, 2)
    vectors[..., 0] = 4.0
    valid = torch.ones(n, 7, 8, 8, dtype=torch.bool)
    valid[:, :, 0, :4] = False
    return VideoBatch(
        video=video,
        mask=Random(ratio=0.75).draw(GRID, rngs(n)) if mask is None else mask,
        flow=Flow(vectors=vectors, valid=valid) if flow else None,
        label=torch.arange(n) - 1,
        key=[f"clip{i}" for i in range(n)],
        pts_s=torch.arange(8, dtype=torch.float64).mul(0.25).expand(n, 8).contiguous(),
    )


def decode(uri):
    data = np.frombuffer(base64.b64decode(uri.partition(",")[2]), dtype=np.uint8)
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


# One file, complete and safe


def test_page_is_well_formed_and_complete_in_itself():
    text = preview_page(make_batch(), GRID, title="Two clips", facts={"mask": "Random"}, label_names=("run", "walk"))
    page = Page(text)
    assert "://" not in text.replace("http://www.w3.org/2000/svg", "")
    for name in ("src", "href", "xlink:href", "srcset", "poster", "action", "data"):
        for tag, attrs in page.tags:
            if name in attrs:
                assert attrs[name].startswith(("data:", "#")), f"<{tag} {name}={attrs[name][:40]}>"
    assert not re.search(r"@import|@font-face", text)
    assert all(address.startswith("data:image/webp;base64,") for address in re.findall(r"url\(([^)]*)\)", text))
    policy = next(c for c in page.attributes("meta", "content") if "default-src" in c)
    assert "default-src 'none'" in policy
    assert "img-src data:" in policy
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for anchor in page.attributes("a", "href"):
        assert anchor[1:] in ids


def test_keys_labels_titles_and_facts_are_escaped():
    batch = replace(make_batch(1), key=[HOSTILE], label=torch.zeros(1, dtype=torch.int64))
    text = preview_page(batch, GRID, title=HOSTILE, facts={HOSTILE: HOSTILE}, label_names=[HOSTILE])
    page = Page(text)
    assert "alert(1)</script>" not in text
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert page.text.count(HOSTILE) >= 5
    assert page.attributes("article", "data-key") == [HOSTILE]


def test_page_names_clips_times_labels_and_pictures():
    page = Page(preview_page(make_batch(), GRID, title="t", facts={"seed": "17"}, label_names=("run",)))
    assert page.attributes("article", "data-key") == ["clip0", "clip1"]
    assert "no label" in page.text
    assert "label run (0)" in page.text
    assert "8 frames, 0.00 to 1.75 s" in page.text
    assert "seed 17" in page.text
    alts = page.attributes("img", "alt")
    for row, pictures in (("picture", 8), ("seen", 8), ("flow", 7)):
        assert sum(alt.startswith(f"{row} ") for alt in alts) == 2 * pictures


def test_eight_clips_of_sixteen_frames_stay_below_the_limit():
    grid = TokenGrid.video(16, 224, 224)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (8, 16, 28, 28, 3), dtype=np.uint8)
    video = np.stack([[cv2.resize(f, (224, 224), interpolation=cv2.INTER_CUBIC) for f in clip] for clip in noise])
    batch = VideoBatch(
        video=torch.from_numpy(video),
        mask=Tube().draw(grid, rngs(8)),
        flow=None,
        label=torch.zeros(8, dtype=torch.int64),
        key=[str(i) for i in range(8)],
        pts_s=torch.zeros(8, 16, dtype=torch.float64),
    )
    text = preview_page(batch, grid, title="t", facts={})
    assert text.count("<img") > 8 * 16 * 2
    assert len(text) < 2_500_000


@pytest.mark.parametrize("frames", [1, 64, 128, 400])
def test_pictures_shrink_so_that_their_total_area_is_bounded(frames):
    assert 96 <= picture_side(frames) <= 224
    assert picture_side(frames) ** 2 * frames <= 224**2 * 128 * 1.001


# Counts


@pytest.mark.parametrize("mask", [Random(ratio=0.75), Tube(ratio=0.75), Dual(encoder=Tube(ratio=0.75))])
def test_page_states_the_counts_of_each_clip(mask):
    drawn = mask.draw(GRID, rngs(2))
    page = Page(preview_page(make_batch(mask=drawn), GRID, title="t", facts={}))
    for i in range(2):
        visible = (~drawn.masked[i]).reshape(4, 16).sum(1).tolist()
        words = f"{min(visible)} to {max(visible)}" if min(visible) < max(visible) else f"{visible[0]}"
        hidden = 100 * drawn.masked[i].double().mean()
        assert f"Visible tokens {sum(visible)} of 64" in page.text
        assert f"Hidden {hidden:.1f} %" in page.text
        assert f"Targets of the decoder {drawn.target.shape[1]}" in page.text
        assert f"Bright squares are what the encoder sees: {words} of 16 per time step" in page.text
        for n in visible:
            assert f"{n} visible" in page.text


def test_counts_follow_their_definitions():
    masked = torch.ones(1, 64, dtype=torch.bool)
    masked[0, [0, 1, 2, 16, 17, 40]] = False  # steps: 3, 2, 1, 0 visible; step 2 keeps 2, step 3 none
    mask = MaskBatch(
        masked=masked,
        visible=(~masked).nonzero()[:, 1][None],
        target=torch.tensor([[0, 5, 6]]),
        weight=torch.tensor([[0.0, 1.0, 1.0]]),
    )
    tokens = ClipTokens.of(mask, 0, GRID)
    c = tokens.counts
    assert (c.tokens, c.per_step, c.visible, c.visible_per_step) == (64, 16, 6, (3, 2, 1, 0))
    assert c.kept_per_step == (0, 2, 0, 0)
    assert c.kept_share == pytest.approx(2 / 3)
    assert (c.targets, c.weightless_targets) == (3, 1)
    assert c.hidden_share == pytest.approx(58 / 64)
    assert c.places_seen == 4
    assert c.dwell.sum() == 6
    assert c.dwell[0, 0] == 2
    assert tokens.targeted.nonzero()[0].tolist() == [0, 5, 6]


def test_a_target_that_the_encoder_saw_and_a_token_that_is_neither_are_told():
    masked = np.ones((1, 64), dtype=bool)
    masked[0, :16] = False
    target = np.zeros((1, 64), dtype=bool)
    target[0, 8:40] = True
    text = preview_page(make_batch(1, mask=mask_batch(masked, target)), GRID, title="t", facts={})
    page = Page(text)
    assert "8 without weight in the loss" in page.text
    assert "hidden, not reconstructed" in page.text
    assert 'class="undecoded" d="M8 2h8v1H8zM0 3h16v1H0z"' in text


def test_every_hidden_token_a_target_shows_no_third_state():
    assert "not reconstructed" not in preview_page(make_batch(), GRID, title="t", facts={})


# Missing mask and flow


def test_without_mask_or_flow_the_page_says_so():
    batch = replace(make_batch(flow=False), mask=None)
    page = Page(preview_page(batch, GRID, title="t", facts={}))
    assert "built without a mask" in page.text
    assert "gives no flow" in page.text
    assert not [alt for alt in page.attributes("img", "alt") if alt.startswith(("seen", "flow"))]


def test_single_frame_clips_have_no_flow_to_show():
    grid = TokenGrid.video(1, 64, 64, tubelet=1)
    whole = make_batch(1)
    batch = VideoBatch(
        video=whole.video[:, :1],
        mask=Random(ratio=0.5).draw(grid, rngs(1)),
        flow=Flow(vectors=torch.zeros(1, 0, 8, 8, 2), valid=torch.ones(1, 0, 8, 8, dtype=torch.bool)),
        label=whole.label,
        key=whole.key,
        pts_s=whole.pts_s[:, :1],
    )
    page = Page(preview_page(batch, grid, title="t", facts={}))
    assert "8 of 16 per time step" in page.text
    assert "gives no flow" in page.text


@pytest.mark.parametrize("shape", [(4, 8, 8), (8, 4, 4)])
def test_a_grid_that_does_not_cover_the_clips_is_refused(shape):
    with pytest.raises(ValueError, match="covers"):
        preview_page(make_batch(), TokenGrid(shape=shape), title="t", facts={})


def test_a_grid_without_time_is_refused():
    with pytest.raises(ValueError, match="axes t h w"):
        preview_page(make_batch(), TokenGrid(axes=("h", "w"), shape=(4, 4), patch=(16, 16)), title="t", facts={})


# The mask over the frames


def test_darkened_pixels_are_exactly_the_masked_tokens():
    batch = make_batch(1)
    frames = np.maximum(batch.video[0].numpy(), 60)  # brighter than any darkened pixel could stay
    masked = batch.mask.masked[0].numpy()
    out = darken(frames, token_pixels(masked, GRID, (16, 16)))
    changed = (out != frames).any(-1)
    for t in range(8):
        for y in range(64):
            token = (t // 2) * 16 + (y // 16) * 4 + np.arange(64) // 16
            np.testing.assert_array_equal(changed[t, y], masked[token])
    hidden = out[changed]
    assert (hidden == hidden[:, :1]).all()
    assert hidden.max() < 0.35 * 255


def test_frames_of_one_tubelet_share_their_mask():
    flags = token_pixels(np.random.default_rng(0).random(64) < 0.5, GRID, (3, 3))
    assert flags.shape == (8, 12, 12)
    np.testing.assert_array_equal(flags[0::2], flags[1::2])
    assert (flags[0] != flags[2]).any()


def test_the_embedded_picture_is_dark_where_the_token_is_masked():
    batch = replace(make_batch(1), video=torch.full((1, 8, 64, 64, 3), 200, dtype=torch.uint8))
    text = preview_page(batch, GRID, title="t", facts={})
    seen = next(a["src"] for tag, a in Page(text).tags if tag == "img" and a["alt"] == "seen 3")
    picture = decode(seen).astype(float).mean(-1)
    cell = picture.shape[0] // 4
    means = picture.reshape(4, cell, 4, cell).mean((1, 3))
    np.testing.assert_array_equal(means < 130, batch.mask.masked[0].reshape(4, 4, 4)[1].numpy())


def test_cells_are_whole_pixels_in_the_shape_of_the_patch():
    assert cell_size(TokenGrid.video(16, 224, 224), 224) == (16, 16)
    assert cell_size(TokenGrid.video(16, 224, 224), 150) == (11, 11)
    assert cell_size(TokenGrid(shape=(8, 14, 14), patch=(2, 8, 16)), 224) == (8, 16)
    assert cell_size(TokenGrid(shape=(8, 200, 200), patch=(2, 1, 1)), 96) == (1, 1)


def fill(path, shape):
    """The cells that a path of `runs_path` covers."""
    flags = np.zeros(shape, dtype=bool)
    for x, y, n, back in re.findall(r"M(\d+) (\d+)h(\d+)v1H(\d+)z", path):
        assert x == back
        assert not flags[int(y), int(x) : int(x) + int(n)].any()
        flags[int(y), int(x) : int(x) + int(n)] = True
    return flags


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_paths_draw_the_flags(share):
    flags = np.random.default_rng(1).random((9, 13)) < share
    np.testing.assert_array_equal(fill(runs_path(flags), flags.shape), flags)
    lines = re.findall(r"M(\d+) (\d+)([hv])(\d+)", outline_path(flags))
    horizontal, vertical = np.zeros((10, 13), dtype=bool), np.zeros((9, 14), dtype=bool)
    for x, y, way, n in lines:
        x, y, n = int(x), int(y), int(n)
        if way == "h":
            horizontal[y, x : x + n] = True
        else:
            vertical[y : y + n, x] = True
    np.testing.assert_array_equal(horizontal, np.diff(np.pad(flags, ((1, 1), (0, 0))), axis=0))
    np.testing.assert_array_equal(vertical, np.diff(np.pad(flags, ((0, 0), (1, 1))), axis=1))


def test_the_timeline_is_the_mask():
    batch = make_batch(1)
    text = preview_page(batch, GRID, title="t", facts={})
    path = re.search(r'class="visible" d="([^"]*)"', text).group(1)
    np.testing.assert_array_equal(fill(path, (4, 16)), ~batch.mask.masked[0].reshape(4, 16).numpy())


# Flow


@pytest.mark.parametrize(
    ("motion", "colour"),
    [((1, 0), (255, 0, 0)), ((0, 1), (128, 255, 0)), ((-1, 0), (0, 255, 255)), ((0, -1), (127, 0, 255))],
)
def test_hue_is_the_direction_of_motion(motion, colour):
    full = motion_colours(np.array(motion, dtype=np.float32), 1.0)
    np.testing.assert_allclose(full.astype(int), colour, atol=1)
    np.testing.assert_array_equal(motion_colours(5 * np.array(motion, dtype=np.float32), 1.0), full)
    half = motion_colours(0.5 * np.array(motion, dtype=np.float32), 1.0)
    np.testing.assert_allclose(half.astype(int), (np.array(colour) + 255) / 2, atol=1)


def test_colours_are_those_of_hsv():
    motion = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    hsv = np.zeros((1, 400, 3), dtype=np.float32)
    hsv[0, :, 0] = np.degrees(np.arctan2(motion[:, 1], motion[:, 0])) % 360
    hsv[0, :, 1] = np.minimum(np.linalg.norm(motion, axis=1) / 2.0, 1)
    hsv[0, :, 2] = 1
    expected = 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]
    np.testing.assert_allclose(motion_colours(motion, 2.0), expected, atol=1.5)


def test_backward_flow_is_shown_as_the_motion_of_what_is_seen():
    came_from_the_left = np.zeros((4, 4, 2), dtype=np.float32)
    came_from_the_left[..., 0] = -3.0
    picture = flow_picture(came_from_the_left, np.ones((4, 4), dtype=bool), 3.0, (8, 8))
    assert (picture == (255, 0, 0)).all()


def test_cells_without_a_vector_are_hatched_and_all_others_are_not():
    vectors = np.full((4, 4, 2), 2.0, dtype=np.float32)
    vectors[3, 3] = np.nan
    valid = np.ones((4, 4), dtype=bool)
    valid[0, 1] = False
    picture = flow_picture(vectors, valid, 4.0, (64, 64))
    grey = (picture == picture[..., :1]).all(-1) & np.isin(picture[..., 0], (HATCH_DARK, HATCH_LIGHT))
    expected = valid & np.isfinite(vectors).all(-1)
    np.testing.assert_array_equal(grey, ~expected.repeat(16, 0).repeat(16, 1))
    assert len(np.unique(picture[:16, 16:32, 0])) == 2
    assert (picture[~grey] == picture[32, 32]).all()


@pytest.mark.parametrize("size", [(8, 8), (64, 64)])
def test_flow_finer_or_coarser_than_the_picture(size):
    picture = flow_picture(np.zeros((32, 32, 2), dtype=np.float32), np.ones((32, 32), dtype=bool), 1.0, size)
    assert picture.shape == (*size, 3)
    assert (picture == 255).all()


def test_the_scale_is_a_round_number_over_nearly_all_vectors():
    vectors = np.random.default_rng(0).normal(scale=9.0, size=(7, 16, 16, 2)).astype(np.float32)
    valid = np.ones((7, 16, 16), dtype=bool)
    scale = flow_scale(vectors, valid)
    lengths = np.linalg.norm(vectors, axis=-1)
    assert (lengths <= scale).mean() >= 0.985
    assert scale in (30.0, 40.0)
    vectors[0, 0, 0] = 1e6
    valid[0, 0, 0] = False
    assert flow_scale(vectors, valid) == scale


@pytest.mark.parametrize("length", [0.0, 0.01, 1.0, 1.2, 7.0, 9.9, 10.0, 11.0, 480.0])
def test_the_scale_is_at_least_the_vectors_and_at_most_half_as_much_again(length):
    vectors = np.zeros((1, 4, 4, 2), dtype=np.float32)
    vectors[..., 1] = length
    scale = flow_scale(vectors, np.ones((1, 4, 4), dtype=bool))
    assert max(length, 1.0) * (1 - 1e-6) <= scale <= 1.51 * max(length, 1.0)


def test_each_frame_stands_over_the_flow_from_the_frame_before_it():
    batch = make_batch(1)
    vectors = torch.zeros(1, 7, 8, 8, 2)
    motions = [(-4.0, 0.0), (0.0, -4.0), (4.0, 0.0), (0.0, 4.0), (0.0, 0.0), (-4.0, 0.0), (0.0, 4.0)]
    for step, motion in enumerate(motions):
        vectors[0, step] = torch.tensor(motion)
    flow = Flow(vectors=vectors, valid=torch.ones(1, 7, 8, 8, dtype=torch.bool))
    page = Page(preview_page(replace(batch, flow=flow), GRID, title="t", facts={}))
    pictures = {attrs["alt"]: attrs["src"] for tag, attrs in page.tags if tag == "img"}
    assert "flow 1" not in pictures
    for step, motion in enumerate(motions):
        mean = decode(pictures[f"flow {step + 2}"]).reshape(-1, 3).mean(0)
        np.testing.assert_allclose(mean, motion_colours(-np.array(motion, dtype=np.float32), 4.0), atol=12)


def test_flow_without_any_vector_is_all_hatched():
    batch = make_batch(1)
    batch = replace(batch, flow=Flow(vectors=batch.flow.vectors, valid=torch.zeros(1, 7, 8, 8, dtype=torch.bool)))
    page = Page(preview_page(batch, GRID, title="t", facts={}))
    assert "Hatched cells (100.0 %) have no vector" in page.text
    assert "full colour is 1 px" in page.text


def test_page_states_scale_and_missing_share_of_the_flow():
    page = Page(preview_page(make_batch(1), GRID, title="t", facts={}))
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
        np.testing.assert_allclose(disc[y, x, :3].astype(int), motion_colours(towards, 1.0), atol=16)


def test_lossless_pictures_come_back_unchanged():
    image = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(data_uri(image, lossless=True)), image)


# Charts


def points(path):
    return np.array([[float(a), float(b)] for a, b in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)])


def test_chart_points_are_the_values():
    x, y = np.arange(1.0, 51.0), np.random.default_rng(0).random(50)
    chart = line_chart(x, y, include=[1.0], window=5)
    xy = points(chart.line)
    low, high = chart.y_range
    np.testing.assert_allclose(1 + xy[:, 0] / 1000 * 49, x, atol=0.01)
    np.testing.assert_allclose(high - xy[:, 1] / 1000 * (high - low), y, atol=0.001 * (high - low))
    smooth = points(chart.smooth)
    expected = [y[max(i - 2, 0) : i + 3].mean() for i in range(50)]
    np.testing.assert_allclose(high - smooth[:, 1] / 1000 * (high - low), expected, atol=0.001 * (high - low))
    assert low <= y.min()
    assert high >= 1.0
    for tick in chart.y_ticks:
        assert tick.at == pytest.approx(chart.y_at(float(tick.label)))


def test_long_charts_keep_their_extremes():
    y = np.random.default_rng(0).random(20_000)
    y[777], y[15_000] = 9.0, -3.0
    chart = line_chart(np.arange(20_000.0), y)
    xy = points(chart.line)
    assert len(xy) <= 1200
    low, high = chart.y_range
    values = high - xy[:, 1] / 1000 * (high - low)
    assert values.max() == pytest.approx(9.0, abs=0.02)
    assert values.min() == pytest.approx(-3.0, abs=0.02)
    assert (np.diff(xy[:, 0]) >= 0).all()


def test_values_that_are_not_finite_break_the_line():
    y = np.array([1.0, 2.0, np.nan, 4.0, np.inf, 6.0, 7.0])
    chart = line_chart(np.arange(7.0), y)
    assert chart.line.count("M") == 3
    assert len(points(chart.line)) == 5
    assert "h0" in chart.line
    np.testing.assert_allclose(running_mean(y, 3), [1.5, 1.5, 3.0, 4.0, 5.0, 6.5, 6.5])


def test_a_chart_of_one_point_and_of_one_value():
    assert [tick.label for tick in line_chart(np.array([5.0]), np.array([0.5])).x_ticks] == ["5"]
    assert line_chart(np.arange(3.0), np.zeros(3)).y_range[0] <= 0 < line_chart(np.arange(3.0), np.zeros(3)).y_range[1]
    with pytest.raises(ValueError, match="at least one"):
        line_chart(np.array([]), np.array([]))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.5e-4), (0.43, 1.31), (1.0, 60_000.0), (0.0, 100.0), (3.0, 3.0)])
def test_ticks_are_even_and_enclose_the_range(low, high):
    ticks = axis_ticks(low, high, 4)
    assert 2 <= len(ticks) <= 8
    assert ticks[0] <= low * (1 + 1e-9)
    assert ticks[-1] >= high * (1 - 1e-9)
    np.testing.assert_allclose(np.diff(ticks), ticks[1] - ticks[0])
    assert len(set(labels(ticks))) == len(ticks)
    np.testing.assert_allclose([float(t.replace(",", "")) for t in labels(ticks)], ticks, rtol=1e-6, atol=1e-12)


# Files


def test_a_page_replaces_the_old_one_whole(tmp_path):
    out = tmp_path / "deep" / "page.html"
    assert write_page("one ≥", out) == out
    write_page("two", out)
    assert out.read_text(encoding="utf-8") == "two"
    assert os.listdir(out.parent) == ["page.html"]


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "page.html").mkdir()
    with pytest.raises(OSError, match=r"page\.html"):
        write_page("x", tmp_path / "page.html")
    assert os.listdir(tmp_path) == ["page.html"]


def test_preview_of_shards(split, tmp_path):
    out = tmp_path / "page.html"
    clip = VideoClip(frames=8, stride=4, size=32)
    assert preview(split, mask=MotionGuided(ratio=0.75), out=out, clips=3, clip=clip, seed=2) == out
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.attributes("article", "data-key")) == 3
    assert "1 of 4 per time step" in page.text
    assert "MotionGuided(ratio=0.75" in page.text
    assert "guides the mask" in page.text
    assert sum(alt.startswith("flow") for alt in page.attributes("img", "alt")) == 3 * 7
    assert any(f"label {name} (" in page.text for name in "abc")
    preview(split, mask=MotionGuided(ratio=0.75), out=out, clips=3, clip=clip, seed=2)
    assert out.read_text(encoding="utf-8") == text


def test_preview_shows_at_most_the_clips_there_are_and_flow_with_any_mask(split, tmp_path):
    clip = VideoClip(frames=4, stride=2, size=32)
    page = Page(preview(split, mask=Tube(ratio=0.5), out=tmp_path / "a.html", clips=50, clip=clip).read_text())
    assert len(page.attributes("article", "data-key")) == 11
    assert sum(alt.startswith("flow") for alt in page.attributes("img", "alt")) == 11 * 3
    assert "the mask does not use it" in page.text


def test_preview_refuses_what_it_cannot_show(split, tmp_path):
    with pytest.raises(ValueError, match="clips=0"):
        preview(split, mask=None, out=tmp_path / "a.html", clips=0)
    with pytest.raises(ShardError):
        preview(tmp_path / "nothing", mask=None, out=tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()
