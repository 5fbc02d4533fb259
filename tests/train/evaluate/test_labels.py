"""What a classifier learns of labels: weights of classes, smoothing and mixtures, beside references."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.stream.batch import Batch
from maskstream.train.evaluate.classifier import ClassifierConfig, EncoderClassifierConfig
from maskstream.train.evaluate.evaluation import count_confusions
from maskstream.train.evaluate.labels import compute_balanced_weights, cut_box, draw_mixture, label_loss, mix_batch
from maskstream.train.recipes import chosen_recipe

from ..labelled_pictures import SET, SMALL


def pictures(key: str) -> ImageBatch:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8))
    return ImageBatch(image=image, mask=None, key=[key] * 6, label=torch.tensor([0, 1, 2, 2, 1, 0]))


def config(**chosen: object) -> ClassifierConfig[ImageBatch]:
    return ClassifierConfig(of=chosen_recipe("mae-tiny", SMALL).model, classes=3, **chosen)  # type: ignore[arg-type]


def test_weights_and_smoothing_give_torchs_mean_of_what_has_a_label() -> None:
    scores = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, -1, 0, 0, 2])
    for weights, smoothing in (((), 0.0), ((), 0.1), ((0.5, 2.0, 1.0), 0.0), ((0.5, 2.0, 1.0), 0.3)):
        chosen = config(class_weights=weights, smoothing=smoothing)
        weight = torch.tensor(weights) if weights else None
        expected = F.cross_entropy(scores, labels, weight=weight, label_smoothing=smoothing, ignore_index=-1)
        torch.testing.assert_close(label_loss(chosen, scores, labels, None).loss(), expected)


def test_weights_that_balance_give_each_class_the_same_sum() -> None:
    labels = np.array([0, 0, 0, 1, -1, 2, 2, 2, 2])
    weights = compute_balanced_weights(labels, 3)
    assert weights == pytest.approx((8 / 9, 8 / 3, 2 / 3), abs=1e-6)
    with pytest.raises(ValueError, match=r"1 of 4 classes have no samples.*\[3\]"):
        compute_balanced_weights(labels, 4)


@pytest.mark.parametrize("recipe", ["mae-tiny", "ijepa-tiny", "cropmae-tiny"])
@pytest.mark.parametrize("how", [{"cutmix": 1.0}, {"mixup": 0.8}])
def test_a_mixture_has_the_loss_of_mixed_pictures_and_of_both_labels_by_their_shares(recipe, how) -> None:
    base = chosen_recipe(recipe, SET if recipe == "ijepa-tiny" else SMALL)
    kind = ClassifierConfig if recipe == "mae-tiny" else EncoderClassifierConfig
    chosen = {"mixup": 0.0, "smoothing": 0.0, **how}
    model = kind(of=base.model, classes=3, **chosen).build(base.data.grids, seed=0)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    seen = set()
    for key in "abcdef":
        batch = pictures(key)
        mixture = draw_mixture(batch.key, (16, 16), chosen["mixup"], how.get("cutmix", 0.0))
        own, other = mixture.share, batch.image.flip(0)
        if "cutmix" in how:
            own = 1 - float(mixture.box.mean())
            mixed = torch.where(torch.from_numpy(mixture.box)[..., None], other, batch.image)
        else:
            mixed = (own * batch.image.double() + (1 - own) * other.double()).round().to(torch.uint8)
        scores = model.eval().scores(replace(batch, image=mixed))
        expected = own * F.cross_entropy(scores, batch.label) + (1 - own) * F.cross_entropy(scores, batch.label.flip(0))
        torch.testing.assert_close(model.train()(batch).loss(), expected)
        torch.testing.assert_close(model.eval()(batch).loss(), F.cross_entropy(model.scores(batch), batch.label))
        seen.add(own)
    assert len(seen) > 2


def test_a_box_is_at_the_same_place_of_every_time_of_a_clip() -> None:
    video = torch.zeros(2, 3, 4, 5, 3, dtype=torch.uint8)
    video[1] = 1
    mixture = draw_mixture(["a", "b"], (4, 5), 0.0, 1.0)
    made = mixture.of(video, 2)
    for time in range(3):
        for channel in range(3):
            assert torch.equal(made[0, time, ..., channel], torch.from_numpy(mixture.box).to(torch.uint8))
            assert torch.equal(made[1, time, ..., channel], 1 - torch.from_numpy(mixture.box).to(torch.uint8))


def test_texts_cannot_be_mixed() -> None:
    batch = Batch(key=["a", "b"], label=torch.zeros(2, dtype=torch.int64))
    assert mix_batch(batch, 0.0, 0.0) == (batch, None)
    with pytest.raises(ValueError, match=r"a Batch cannot be mixed; set model\.mixup=0 and model\.cutmix=0"):
        mix_batch(batch, 0.8, 0.0)


def test_boxes_have_the_area_that_is_asked_for_except_beyond_the_edges() -> None:
    for share in (0.0, 0.3, 0.75, 1.0):
        boxes = [cut_box(40, 20, share, np.random.default_rng(n)) for n in range(200)]
        sides = [(np.any(one, axis=1).sum(), np.any(one, axis=0).sum()) for one in boxes]
        side = (1 - share) ** 0.5
        assert max(rows for rows, _ in sides) == round(40 * side)
        assert max(columns for _, columns in sides) == round(20 * side)
        assert all(one.sum() == rows * columns for one, (rows, columns) in zip(boxes, sides, strict=True))


def test_a_mixture_is_a_function_of_the_keys_and_half_are_cuts() -> None:
    def drawn(mixup: float, cutmix: float) -> list[tuple[float, bool]]:
        found = [draw_mixture([f"{n}", "x"], (8, 8), mixup, cutmix) for n in range(400)]
        return [(one.share, one.box is not None) for one in found]

    assert drawn(0.8, 1.0) == drawn(0.8, 1.0)
    assert sum(cut for _, cut in drawn(0.8, 1.0)) / 400 == pytest.approx(0.5, abs=0.08)
    assert {cut for _, cut in drawn(0.8, 0.0)} == {False}
    assert {cut for _, cut in drawn(0.0, 1.0)} == {True}
    shares = [share for share, _ in drawn(0.8, 0.0)]
    assert sum(shares) / 400 == pytest.approx(0.5, abs=0.06)
    assert min(shares) < 0.05


def test_lists_of_classes_are_mixed_class_by_class() -> None:
    scores = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    lists = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]])
    mixture = draw_mixture(["a", "b"], (4, 4), 0.8, 0.0)
    own = mixture.share

    def error(target: Tensor) -> Tensor:
        return -(target * scores.sigmoid().log() + (1 - target) * (1 - scores.sigmoid()).log()).mean()

    expected = own * error(lists) + (1 - own) * error(lists.flip(0))
    torch.testing.assert_close(label_loss(config(several=True), scores, lists, mixture).loss(), expected)


def test_confusions_are_counted_by_true_and_said_class() -> None:
    scores = torch.randn(50, 4, generator=torch.Generator().manual_seed(2))
    labels = torch.randint(4, (50,), generator=torch.Generator().manual_seed(3))
    expected = torch.zeros(4, 4, dtype=torch.int64)
    for score, label in zip(scores, labels, strict=True):
        expected[label, score.argmax()] += 1
    assert torch.equal(count_confusions(scores, labels), expected)


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ({"cutmix": -1.0}, "cutmix must be a number of at least 0, got -1.0"),
        ({"class_weights": (1.0, 2.0)}, "a number for each of 3 classes"),
        ({"class_weights": (1.0, 1.0, 1.0), "several": True}, "have lists of classes"),
        ({"test_views": 0}, "test_views must be an integer of at least 1"),
    ],
)
def test_wrong_settings_are_told(chosen: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        config(**chosen)
