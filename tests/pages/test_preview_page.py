"""The page about clips of video: one safe file, and what it says of masks and flow."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from maskstream.pages.figures.figures import MaskRow, mask_facts
from maskstream.pages.figures.video import choose_picture_side
from maskstream.pages.page import write_page
from maskstream.pipelines.flow.base import Flow
from maskstream.pipelines.masks import (
    Cues,
    Draw,
    DropAndMask,
    Dual,
    MaskBatch,
    Padded,
    Random,
    TokenGrid,
    Tube,
    UniformCount,
    mask_batch,
)
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.stream.rng import START

from ..pipelines.clips import GRID, make_batch, rngs
from .pages import Page, complete_in_itself, video_page

HOSTILE = "<script>alert(1)</script>\"'&{{ 7 * 7 }}"


def test_page_is_well_formed_and_complete_in_itself():
    text = video_page(make_batch(), GRID, title="Two clips", facts={"mask": "Random"}, label_names=("run", "walk"))
    page = complete_in_itself(text)
    assert any("img-src data:" in content for content in page.attributes("meta", "content"))


def test_keys_labels_titles_and_facts_are_escaped():
    batch = replace(make_batch(1), key=[HOSTILE], label=torch.zeros(1, dtype=torch.int64))
    text = video_page(batch, GRID, title=HOSTILE, facts={HOSTILE: HOSTILE}, label_names=[HOSTILE])
    page = Page(text)
    assert "alert(1)</script>" not in text
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert page.text.count(HOSTILE) >= 5
    assert page.attributes("article", "data-key") == [HOSTILE]


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("train_dog_007_mp4-0123456789abcdef", "train_dog_007_mp4"),
        ("my-own-key", "my-own-key"),
        ("-0123456789abcdef", "-0123456789abcdef"),
        ("a" * 30 + "bcdef" + "-0123456789abcdef", "…" + "a" * 27 + "bcdef"),
    ],
)
def test_a_key_is_short_and_whole_on_hover(key, shown):
    page = Page(video_page(replace(make_batch(), key=[key, "other"]), GRID, title="t", facts={}))
    assert page.text.count(shown) == 2  # in the list of contents, and above the sample
    assert key == shown or key not in page.text
    assert page.attributes("article", "data-key") == [key, "other"]
    assert page.attributes("h2", "title") == [key] * (key != shown)
    assert page.attributes("a", "title") == [key, "other"]


def test_bytes_of_a_name_that_are_no_utf8_are_escaped(tmp_path):
    path = write_page("<p>a\udcff \ud800</p>", tmp_path / "page.html")
    assert path.read_text(encoding="utf-8") == "<p>a\\udcff \\ud800</p>"


def test_page_names_clips_times_labels_and_pictures():
    page = Page(video_page(make_batch(), GRID, title="t", facts={"seed": "17"}, label_names=("run",)))
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
    text = video_page(batch, grid, title="t", facts={})
    assert text.count("<img") > 8 * 16 * 2
    assert len(text) < 2_500_000


@pytest.mark.parametrize("frames", [1, 64, 128, 400])
def test_pictures_shrink_so_that_their_total_area_is_bounded(frames):
    assert 96 <= choose_picture_side(frames) <= 224
    assert choose_picture_side(frames) ** 2 * frames <= 224**2 * 128 * 1.001


# Counts


@pytest.mark.parametrize("mask", [Random(ratio=0.75), Tube(ratio=0.75), Dual(encoder=Tube(ratio=0.75))])
def test_page_states_the_counts_of_each_clip(mask):
    drawn = mask.draw(GRID, rngs(2))
    page = Page(video_page(make_batch(mask=drawn), GRID, title="t", facts={}))
    for i in range(2):
        visible = (~drawn.masked[i]).reshape(4, 16).sum(1).tolist()
        words = f"{min(visible)} to {max(visible)}" if min(visible) < max(visible) else f"{visible[0]}"
        hidden = 100 * drawn.masked[i].double().mean()
        assert f"Visible tokens {sum(visible)} of 64" in page.text
        assert f"Hidden {hidden:.1f} %" in page.text
        assert f"Targets of the decoder {drawn.target.shape[1]}" in page.text
        assert f"Bright squares are visible to the encoder: {words} of 16 per time step" in page.text
        for n in visible:
            assert f"{n} visible" in page.text


def test_counts_follow_their_definitions():
    masked = torch.ones(1, 64, dtype=torch.bool)
    masked[0, [0, 1, 2, 16, 17, 40]] = False  # steps: 3, 2, 1, 0 visible; step 2 keeps 2, step 3 none
    mask = MaskBatch(
        grid=GRID,
        masked=masked,
        visible=(~masked).nonzero()[:, 1][None],
        target=torch.tensor([[0, 5, 6]]),
        weight=torch.tensor([[0.0, 1.0, 1.0]]),
    )
    row = MaskRow.of(mask, 0)
    assert row.targeted.nonzero()[0].tolist() == [0, 5, 6]
    visible, hidden, targets = mask_facts(row)
    assert (visible.value, visible.of) == ("6", "of 64")
    assert hidden.value == "90.6\N{NO-BREAK SPACE}%"
    assert (targets.value, targets.note) == ("3", "1 without weight in the loss")
    page = Page(video_page(make_batch(1, mask=mask), GRID, title="t", facts={}))
    assert "Visible per step 0 to 3 of 16" in page.text
    assert "66.7 % were visible at the same position in the previous step" in page.text.replace(
        "\N{NO-BREAK SPACE}", " "
    )
    assert "4 of 16 positions are seen at least once" in page.text
    for step, words in enumerate(("3", "2 2 kept", "1 0 kept", "0 0 kept")):
        assert words in page.text, step


def test_padding_is_neither_visible_nor_a_target():
    schedule = UniformCount(low=10, high=50)
    mask = Padded(mask=Random(ratio=schedule), bucket=64).draw(GRID, rngs(6))
    for i in range(6):
        row = MaskRow.of(mask, i)
        hidden = int(mask.masked[i].sum())
        assert (row.visible, row.targeted.sum(), row.weightless_targets) == (64 - hidden, hidden, 0)
    assert len({int(MaskRow.of(mask, i).targeted.sum()) for i in range(6)}) > 1


def test_tokens_that_enter_as_the_mask_token_are_counted():
    mask = DropAndMask().draw(GRID, [Draw.of(0, 0, "clip", 0, START, Cues())])
    page = Page(video_page(make_batch(1, mask=mask), GRID, title="t", facts={}))
    assert mask.mask_token.any()
    assert f"{int(mask.mask_token.sum())} of them enter as the mask token" in page.text


def test_the_counts_of_a_part_of_the_tokens_are_those_of_the_part():
    masked = np.zeros((1, 10), dtype=bool)
    masked[0, [1, 4, 5, 8]] = True
    target = np.zeros((1, 10), dtype=bool)
    target[0, [3, 4, 9]] = True
    grid = TokenGrid(axes=("time",), shape=(10,), patch=(1,))
    row = MaskRow.of(mask_batch(masked, target, grid=grid), 0, slice(3, 7))
    assert (row.masked.size, row.visible, row.targeted.sum(), row.weightless_targets) == (4, 2, 2, 1)


def test_a_target_that_the_encoder_saw_and_a_token_that_is_neither_are_told():
    masked = np.ones((1, 64), dtype=bool)
    masked[0, :16] = False
    target = np.zeros((1, 64), dtype=bool)
    target[0, 8:40] = True
    text = video_page(make_batch(1, mask=mask_batch(masked, target, grid=GRID)), GRID, title="t", facts={})
    page = Page(text)
    assert "8 without weight in the loss" in page.text
    assert "hidden, not reconstructed" in page.text
    assert 'class="undecoded" d="M8 2h8v1H8zM0 3h16v1H0z"' in text


def test_every_hidden_token_a_target_shows_no_third_state():
    assert "not reconstructed" not in video_page(make_batch(), GRID, title="t", facts={})


# Missing mask and flow


def test_without_mask_or_flow_the_page_says_so():
    batch = replace(make_batch(flow=False), mask=None)
    page = Page(video_page(batch, GRID, title="t", facts={}))
    assert "built without a mask" in page.text
    assert "returns no flow" in page.text
    assert not [alt for alt in page.attributes("img", "alt") if alt.startswith(("seen", "flow"))]


def test_single_frame_clips_have_no_flow_to_show():
    grid = TokenGrid.video(1, 64, 64, tubelet=1)
    whole = make_batch(1)
    batch = VideoBatch(
        video=whole.video[:, :1],
        mask=Random(ratio=0.5).draw(grid, rngs(1)),
        flow=Flow(
            vectors=torch.zeros(1, 0, 8, 8, 2),
            valid=torch.ones(1, 0, 8, 8, dtype=torch.bool),
            cuts=torch.zeros(1, 0, dtype=torch.bool),
        ),
        label=whole.label,
        key=whole.key,
        pts_s=whole.pts_s[:, :1],
    )
    page = Page(video_page(batch, grid, title="t", facts={}))
    assert "8 of 16 per time step" in page.text
    assert "returns no flow" in page.text


@pytest.mark.parametrize("shape", [(4, 8, 8), (8, 4, 4)])
def test_a_grid_that_does_not_cover_the_clips_is_refused(shape):
    with pytest.raises(ValueError, match="covers"):
        video_page(make_batch(), TokenGrid(shape=shape), title="t", facts={})


def test_a_grid_without_time_is_refused():
    with pytest.raises(ValueError, match=r"covers \(64, 64\), but the clips are \(8, 64, 64\)"):
        video_page(make_batch(), TokenGrid(axes=("h", "w"), shape=(4, 4), patch=(16, 16)), title="t", facts={})
