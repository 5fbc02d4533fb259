"""OneRef: boxes, relations, what hidden parts change, and its figure beside boxes that do not read the phrase."""

from dataclasses import replace

import pytest
import torch

from maskstream.modalities import MODALITIES
from maskstream.pages.report.drawn import make_sections
from maskstream.shards.format.manifest import Manifest
from maskstream.train.core.weights import load_matching_weights, save_model
from maskstream.train.evaluate_run import evaluate_model
from maskstream.train.papers.oneref.evaluate import measure_referring
from maskstream.train.papers.oneref.model import (
    OneRefConfig,
    compute_generalised_overlap,
    overlap,
    to_centre,
    to_corners,
)
from maskstream.train.recipes import chosen_recipe

from ...pipelines.every_modality import write_split
from ..first_batch import first_batch, shaken
from ..test_every_recipe import CUTS


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split("image-text", tmp_path_factory.mktemp("oneref"))


def small(name="oneref-tiny", *more):
    return chosen_recipe(name, (*CUTS["oneref"], "batch_size=5", *more))


@pytest.fixture(scope="module")
def batch(split):
    return first_batch(split, small())


@pytest.fixture(scope="module")
def model():
    return shaken(small(), 0.05)


def drawn(box, n=200):
    """A box as pixels of a picture of n x n."""
    pixels = torch.zeros(n, n, dtype=torch.bool)
    x0, y0, x1, y1 = (box * n).round().int().tolist()
    pixels[y0:y1, x0:x1] = True
    return pixels


def test_overlaps_are_those_of_drawn_boxes():
    low = torch.rand(30, 2, generator=torch.Generator().manual_seed(0)) * 0.6
    boxes = (torch.cat((low, low + 0.1 + 0.3 * low.flip(0)), dim=1) * 200).round() / 200
    others = boxes.roll(1, dims=0)
    torch.testing.assert_close(to_corners(to_centre(boxes)), boxes)
    for one, other, iou, giou in zip(
        boxes, others, overlap(boxes, others), compute_generalised_overlap(boxes, others), strict=True
    ):
        a, b = drawn(one), drawn(other)
        union = (a | b).sum()
        torch.testing.assert_close(iou, (a & b).sum() / union)
        around = drawn(torch.cat((torch.minimum(one[:2], other[:2]), torch.maximum(one[2:], other[2:])))).sum()
        torch.testing.assert_close(giou, (a & b).sum() / union - (around - union) / around)


def test_relations_say_where_the_box_is_from_every_patch(model):
    boxes = torch.tensor([[0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.1, 0.1]])
    found = model.relations(boxes).reshape(2, 4, 4, 4)
    assert found[0, 3, 1].tolist() == pytest.approx([(1 - 2) / 4, (3 - 3) / 4, 1 / 2, 1 / 2])
    assert found[1, 0, 2].tolist() == pytest.approx([(2 - 0.2) / 4, (0 - 0.2) / 4, 1, 1])
    inside = model.inside(boxes).reshape(2, 4, 4)
    assert inside[0].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]]
    assert not inside[1].any()


@torch.no_grad()
def test_hidden_patches_words_and_padding_are_not_read(batch, model):
    before = model.found(batch)
    hidden = batch.image_mask.masked.reshape(-1, 4, 4).repeat_interleave(8, 1).repeat_interleave(8, 2)[..., None]
    changed = replace(
        batch,
        image=torch.where(hidden, 255 - batch.image, batch.image),
        text=replace(batch.text, tokens=torch.where(batch.text_mask.masked, 7, batch.text.tokens)),
        text_mask=replace(batch.text_mask, tokens=torch.where(batch.text.valid, batch.text_mask.tokens, 9)),
    )
    after = model.found(changed)
    torch.testing.assert_close(after.box, before.box)
    torch.testing.assert_close(after.segment, before.segment)
    other = model.found(replace(batch, image=torch.where(hidden, batch.image, 255 - batch.image)))
    assert not torch.allclose(other.near, before.near, atol=1e-4)
    seen = ~batch.text_mask.masked & (batch.text.words >= 0)
    words = replace(batch.text_mask, tokens=torch.where(seen, 9, batch.text_mask.tokens))
    other = model.found(replace(batch, text_mask=words))
    assert not torch.allclose(other.near, before.near, atol=1e-4)


@torch.no_grad()
def test_the_parts_of_the_loss_are_those_of_the_data(split, batch, model):
    areas = [f"{name}, {part}" for name in ("patches of the box", "segment") for part in ("focal", "dice")]
    masked = {"hidden patches", "relations", "hidden words"}
    parts = model.loss(batch).parts
    assert {*parts} == {"box", "overlap", *areas} | masked
    plain = first_batch(split, small("oneref-refer-tiny"))
    assert {*model.loss(plain).parts} == {"box", "overlap", *areas}
    bare = first_batch(split, small("oneref-refer-tiny", "data.segments=false"))
    assert {*model.loss(bare).parts} == {"box", "overlap", *areas[:2]}
    found = model.found(batch)
    true = to_centre(batch.box)
    torch.testing.assert_close(parts["box"].mean(), (found.box - true).abs().sum(dim=1).mean())
    nowhere = replace(batch, box=torch.full_like(batch.box, torch.nan))
    lost = model.loss(nowhere)
    assert float(lost.parts["box"].weight) == float(lost.parts["relations"].weight) == 0
    assert torch.isfinite(lost.loss())
    torch.testing.assert_close(lost.parts["hidden words"].mean(), parts["hidden words"].mean())


@torch.no_grad()
def test_what_is_found_has_the_places_of_the_image(batch, model):
    made = model.reconstructed(batch)
    assert made.segment.shape == batch.image.shape[:3]
    logits = model.found(batch).segment
    assert made.segment[1, 8:16, 24:32].flatten().tolist() == (logits[1, 4 + 3] > 0).tolist()
    changed = (made.image != batch.image).any(-1).reshape(len(batch), 4, 8, 4, 8).any(dim=4).any(dim=2).flatten(1)
    assert not (changed & ~batch.image_mask.masked).any()
    assert made.text.tokens[~batch.text_mask.masked].equal(batch.text.tokens[~batch.text_mask.masked])


def test_fine_tuning_begins_with_the_model_of_a_run(model, tmp_path):
    save_model(model, tmp_path / "model.safetensors")
    other = small("oneref-refer-tiny").build(seed=4)
    assert not load_matching_weights(other, tmp_path / "model.safetensors")
    assert all(a.equal(b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


class Told:
    """A model that finds given boxes."""

    def __init__(self, box):
        self.box = box

    def reconstructed(self, batch):
        return replace(batch, box=self.box, segment=batch.segment.flip(0))


def test_boxes_are_compared_with_boxes_that_do_not_read_the_phrase(batch):
    true = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.2, 0.2]])
    found = torch.tensor([[0.0, 0.0, 0.5, 0.4], [0.0, 0.5, 1.0, 1.0], [0.5, 0.5, 0.7, 0.7]])
    every = torch.stack([true, true.roll(1, 0), torch.zeros(3, 4)], dim=1)
    segment = torch.zeros(3, 4, 4, dtype=torch.bool)
    segment[0, :2], segment[1, :, :2], segment[2, 0, 0] = True, True, True
    fields = {"boxes": every, "boxes.length": torch.tensor([2, 2, 2])}
    asked = replace(batch, box=true, segment=segment, fields=fields)
    (hits, overlaps, segments), _ = measure_referring(Told(found), [asked], torch.tensor([0.0, 0.0, 0.5, 0.5]))
    assert hits.value == pytest.approx(2 / 3)
    assert overlaps.value == pytest.approx((0.8 + 0.5 + 0) / 3)
    assert segments.value == pytest.approx((1 / 8 + 1 + 1 / 8) / 3)
    assert hits.baselines == pytest.approx(
        {
            "the largest object": 2 / 3,
            "any of the objects": 1 / 2,
            "the mean box": 1 / 3,
            "a box in the centre": 0,
        }
    )
    with pytest.raises(ValueError, match="there are none"):
        measure_referring(Told(found), [replace(asked, box=true * torch.nan)], true[0])


def test_a_report_has_a_figure_phrases_and_unseen_objects(split, tmp_path):
    for name in ("val", "unseen"):
        (tmp_path / name).symlink_to(split, target_is_directory=True)
    recipe = small()
    found = evaluate_model(recipe, recipe.build().eval(), Manifest.load(tmp_path / "val"), 2)
    assert any(score.name.endswith("objects never shown") for score in found.scores)
    figures = MODALITIES["image-text"].figures(recipe.data, Manifest.load(tmp_path / "val"))
    (section,) = make_sections(found.examples, figures, ())
    assert section.cards[0].words.startswith("Overlap 0.")
    assert len(section.cards) == 2
    words, pictures = section.cards[0].figures
    assert words.title == ""
    assert [one.caption for one in pictures.items] == [
        "the phrase's box",
        "the predicted box",
        "its segment",
        "the predicted segment",
    ]


def test_sizes_and_data_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="multiple of 4 and of heads, got width=30"):
        OneRefConfig(width=30)
    with pytest.raises(ValueError, match="depth must be an integer of at least 1, got 0"):
        OneRefConfig(depth=0)
    with pytest.raises(ValueError, match=r"data\.text must include 'phrase'"):
        small("oneref-tiny", 'data.text=["question"]')
