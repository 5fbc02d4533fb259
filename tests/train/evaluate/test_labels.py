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
from maskstream.train.evaluate.evaluation import count_confusions
from maskstream.train.evaluate.finetune import ClassifierConfig
from maskstream.train.evaluate.labels import balanced_weights, cut_box, draw_mixture, label_loss
from maskstream.train.recipes import chosen_recipe

from ..labelled_pictures import SMALL

GRID = (4, 4)


def of_keys(*keys: str) -> Batch:
    return Batch(key=list(keys), label=torch.zeros(len(keys), dtype=torch.int64))


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
    weights = balanced_weights(labels, 3)
    assert weights == pytest.approx((8 / 9, 8 / 3, 2 / 3), abs=1e-6)
    with pytest.raises(ValueError, match=r"1 of 4 classes have no sample.*\[3\]"):
        balanced_weights(labels, 4)


def test_a_cut_has_the_loss_of_pictures_that_were_cut_and_of_both_labels_by_their_areas() -> None:
    model = config(mixup=0.0, cutmix=1.0, smoothing=0.0).build(chosen_recipe("mae-tiny", SMALL).data.grids, seed=0)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    seen = set()
    for key in "abcdef":
        batch = pictures(key)
        mixture = draw_mixture(batch, GRID, 0.0, 1.0)
        assert mixture is not None
        assert mixture.box is not None
        box = torch.from_numpy(np.kron(mixture.box, np.ones((4, 4), bool)))
        own = 1 - float(box.float().mean())
        cut = replace(batch, image=torch.where(box[..., None], batch.image.flip(0), batch.image))
        scores = model.eval().scores(cut)
        expected = own * F.cross_entropy(scores, batch.label) + (1 - own) * F.cross_entropy(scores, batch.label.flip(0))
        torch.testing.assert_close(model.train()(batch).loss(), expected)
        seen.add(own)
    assert len(seen) > 2


def test_a_box_is_at_the_same_place_of_every_time_of_a_clip() -> None:
    mixture = draw_mixture(of_keys("a", "b"), (3, 4, 5), 0.0, 1.0)
    assert mixture is not None
    assert mixture.box is not None
    made = mixture.of(torch.arange(2.0)[:, None, None].expand(2, 60, 1)).view(2, 3, 4, 5)
    for time in range(3):
        assert torch.equal(made[0, time], torch.from_numpy(mixture.box).float())
        assert torch.equal(made[1, time], 1 - torch.from_numpy(mixture.box).float())


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
        found = [draw_mixture(of_keys(f"{n}", "x"), (8, 8), mixup, cutmix) for n in range(400)]
        return [(one.share, one.box is not None) for one in found if one is not None]

    assert drawn(0.8, 1.0) == drawn(0.8, 1.0)
    assert sum(cut for _, cut in drawn(0.8, 1.0)) / 400 == pytest.approx(0.5, abs=0.08)
    assert {cut for _, cut in drawn(0.8, 0.0)} == {False}
    assert {cut for _, cut in drawn(0.0, 1.0)} == {True}
    assert drawn(0.0, 0.0) == []
    shares = [share for share, _ in drawn(0.8, 0.0)]
    assert sum(shares) / 400 == pytest.approx(0.5, abs=0.06)
    assert min(shares) < 0.05


def test_lists_of_classes_are_mixed_class_by_class() -> None:
    scores = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    lists = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]])
    mixture = draw_mixture(of_keys("a", "b"), GRID, 0.8, 0.0)
    assert mixture is not None
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
        ({"cutmix": -1.0}, "mixup and cutmix must be >= 0"),
        ({"class_weights": (1.0, 2.0)}, "a number >= 0 for each of 3 classes"),
        ({"class_weights": (1.0, 1.0, 1.0), "several": True}, "have lists of classes"),
        ({"test_views": 0}, "test_views must be at least 1"),
    ],
)
def test_wrong_settings_are_told(chosen: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        config(**chosen)
