"""Skeletons on a page: joints where they are, at one scale; hidden ones are pale; and what a report shows."""

import re
from dataclasses import replace

import numpy as np
import pytest

from maskstream.modalities.pose import POSE, figures
from maskstream.pages.figures.pose import ACROSS, skeletons
from maskstream.pages.report.drawn import make_sections
from maskstream.pipelines import PoseClip, masks
from maskstream.pipelines.modalities.pose.data import PoseData
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.h36m import bones
from maskstream.train.papers.mpm.evaluate import evaluate
from maskstream.train.papers.mpm.model import PoseModelConfig

from ..pipelines.every_modality import write_split
from ..pipelines.small_media import random_motion

DATA = PoseData(clip=PoseClip(frames=9, stride=1), mask=masks.Joints(frames=0.5, joints=5))
SMALL = PoseModelConfig(width=16, hidden=24, depth=1, heads=2)


@pytest.fixture(scope="module")
def flat():
    return random_motion(np.random.default_rng(0), 8)[..., [0, 2]] * (1, -1)


def strokes(drawing, name):
    """The lines (n, 2, 2) of the paths of a class."""
    numbers = r"M([-\d.e]+) ([-\d.e]+)L([-\d.e]+) ([-\d.e]+)"
    found = [m for kind, path in drawing.paths if kind == name for m in re.findall(numbers, path)]
    return np.array(found, dtype=float).reshape(-1, 2, 2)


def test_bones_are_those_of_the_pose_at_one_scale_in_their_cells(flat):
    drawing = skeletons(flat)
    drawn = strokes(drawing, "line-visible").reshape(8, 16, 2, 2)
    true = flat[:, np.array(bones(17))]
    length, wanted = (np.diff(one, axis=2)[:, :, 0] for one in (drawn, true))
    scale = (length * wanted).sum() / (wanted**2).sum()
    assert scale > 0
    np.testing.assert_allclose(length, scale * wanted, atol=0.11)  # positions are written with one decimal
    gap, tall = drawing.width / ACROSS, drawing.height / 2
    pelvis = drawn[:, 0, 1]
    np.testing.assert_allclose(pelvis[:, 0], gap * (np.arange(8) % ACROSS + 0.5), atol=0.06)
    assert (pelvis[:6, 1] < tall).all()
    assert (pelvis[6:, 1] > tall).all()
    assert drawn.min() >= 0
    assert drawn[..., 0].max() <= drawing.width
    assert drawn[..., 1].max() <= drawing.height


def test_bones_of_hidden_joints_are_pale(flat):
    hidden = np.zeros((8, 17), dtype=bool)
    hidden[:, 3] = True  # the end of a leg, with one bone
    hidden[2] = True
    drawing = skeletons(flat, hidden=hidden)
    assert len(strokes(drawing, "line-hidden")) == 7 + 16
    assert len(strokes(drawing, "line-visible")) == 7 * 15
    assert dict(drawing.paths)["dot-hidden"].count("M") == 7 + 17
    assert dict(drawing.paths)["dot-visible"].count("M") == 7 * 16


def test_what_a_model_made_is_drawn_over_the_truth_at_its_scale(flat):
    drawing = skeletons(flat, made=flat)
    np.testing.assert_allclose(strokes(drawing, "line-made"), strokes(drawing, "line-hidden"), atol=0.11)
    assert len(strokes(drawing, "line-visible")) == 0
    larger = skeletons(flat, made=flat * 2)
    true, made = (np.diff(strokes(larger, name), axis=1) for name in ("line-hidden", "line-made"))
    np.testing.assert_allclose(made, 2 * true, atol=0.22)


def test_a_report_shows_lifted_and_completed_poses(tmp_path):
    split = write_split("pose", tmp_path)
    model = SMALL.build(DATA.grids).eval()
    sections = make_sections(
        evaluate(model, DATA, Manifest.load(split), 3).examples, figures(DATA, Manifest.load(split)), ()
    )
    assert [(section.title, len(section.cards)) for section in sections] == [
        ("Lifted poses", 3),
        ("Completed poses", 3),
    ]
    lifted, completed = (section.cards[0].figures for section in sections)
    assert [figure.title for figure in lifted] == ["As the camera sees it", "From the camera's right: made"]
    assert [figure.title.rpartition(": ")[2] for figure in completed] == ["seen", "made", "seen", "made"]
    lift = replace(SMALL, task="lift").build(DATA.grids).eval()
    plain = replace(DATA, mask=None)
    assert [one.title for one in evaluate(lift, plain, Manifest.load(split), 2).examples] == ["Lifted poses"]


def test_a_preview_has_clips_no_longer_than_most_motions(tmp_path):
    split = write_split("pose", tmp_path)
    assert POSE.shown(Manifest.load(split)).clip.frames == (20 + 3 * 7) // 2
    assert POSE.shown(Manifest.load(split), ["clip.frames=243"]).clip.frames == 243
