"""Crops: legality, the set that VideoMAE draws from, and the shares of RandomResizedCrop."""

import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskstream.pipelines.augment import (
    AUGMENTATIONS,
    Augmentation,
    CenterCrop,
    Crop,
    MultiScaleCrop,
    NestedCrop,
    RandomResizedCrop,
    SharedCrop,
)

ALL = [CenterCrop(), MultiScaleCrop(), RandomResizedCrop(), MultiScaleCrop(flip=0.5), RandomResizedCrop(flip=1.0)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(ALL),
    st.tuples(st.integers(1, 600), st.integers(1, 600), st.integers(1, 300)),
    st.integers(0, 2**32),
)
def test_crops_lie_in_the_frame_and_are_plain_ints(
    augment: Augmentation, sizes: tuple[int, int, int], seed: int
) -> None:
    width, height, size = sizes
    crop = augment.draw(width, height, size, rng(seed))
    assert crop.width >= 1
    assert crop.height >= 1
    assert 0 <= crop.x <= crop.x + crop.width <= width
    assert 0 <= crop.y <= crop.y + crop.height <= height
    assert {type(v) for v in (crop.x, crop.y, crop.width, crop.height)} == {int}
    assert type(crop.flip) is bool
    assert augment.draw(width, height, size, rng(seed)) == crop


def legal_crops(width: int, height: int, size: int) -> set[tuple[int, int, int, int]]:
    """Every crop that VideoMAE may draw, written out place by place."""
    sides = []
    for scale in (1, 0.875, 0.75, 0.66):
        side = int(min(width, height) * scale)
        sides.append(size if size - 3 < side < size + 3 else side)
    legal = set()
    for i in range(4):
        for j in range(4):
            if i - j not in (-1, 0, 1):
                continue
            w, h = sides[i], sides[j]
            x_step, y_step = (width - w) // 4, (height - h) // 4
            left, middle_x, right = 0, 2 * x_step, 4 * x_step
            top, middle_y, bottom = 0, 2 * y_step, 4 * y_step
            places = [(x, y) for x in (left, middle_x, right) for y in (top, middle_y, bottom)]
            places += [(x, y) for x in (x_step, 3 * x_step) for y in (y_step, 3 * y_step)]
            assert len(places) == 13
            legal |= {(x, y, w, h) for x, y in places}
    return legal


@pytest.mark.parametrize("sizes", [(340, 256, 224), (256, 340, 224), (320, 240, 224), (455, 256, 112), (298, 226, 224)])
def test_multi_scale_draws_exactly_the_legal_set(sizes: tuple[int, int, int]) -> None:
    generator = rng(1)
    drawn = Counter()
    for _ in range(6000):
        crop = MultiScaleCrop().draw(*sizes, generator)
        assert not crop.flip
        drawn[crop.x, crop.y, crop.width, crop.height] += 1
    assert set(drawn) == legal_crops(*sizes)
    shapes = Counter((crop[2], crop[3]) for crop in drawn.elements())
    assert len(shapes) == 10
    assert max(shapes.values()) < 1.3 * min(shapes.values())


def test_sides_near_the_output_become_the_output() -> None:
    sides = {MultiScaleCrop().draw(340, 256, 225, rng(i)).width for i in range(200)}
    assert sides == {256, 225, 192, 168}
    assert MultiScaleCrop(scales=(1.0,)).draw(300, 222, 224, rng()).height == 222  # the frame has no more


def test_random_resized_draws_the_area_and_aspect_asked_for() -> None:
    generator = rng(2)
    crops = [RandomResizedCrop(scale=(0.5, 1.0)).draw(2000, 1600, 224, generator) for _ in range(3000)]
    areas = np.array([c.width * c.height for c in crops]) / (2000 * 1600)
    aspects = np.array([c.width / c.height for c in crops])
    assert 0.499 < areas.min() < 0.51
    assert areas.max() <= 1
    assert 0.749 < aspects.min() < 0.76
    assert 1.31 < aspects.max() < 1.335
    small = RandomResizedCrop(scale=(0.1, 0.3), ratio=(0.5, 2.0))
    crops = [small.draw(2000, 2000, 224, generator) for _ in range(3000)]
    shares = np.array([c.width * c.height for c in crops]) / 2000**2
    logs = np.log([c.width / c.height for c in crops])
    for values, low, high in ((shares, 0.1, 0.3), (logs, np.log(0.5), np.log(2.0))):
        counts, _ = np.histogram(values, bins=10, range=(low, high))
        assert abs(((counts - 300) ** 2 / 300).sum() - 9) < 4 * np.sqrt(18)
    assert {c.x > 1000 for c in crops} == {c.y > 1000 for c in crops} == {True, False}


def test_random_resized_falls_back_to_the_centre() -> None:
    flat = RandomResizedCrop(scale=(1.0, 1.0)).draw(1000, 100, 224, rng())
    assert (flat.y, flat.height, flat.width, flat.x) == (0, 100, 133, 433)
    tall = RandomResizedCrop(scale=(1.0, 1.0)).draw(90, 1000, 224, rng())
    assert (tall.x, tall.width, tall.height, tall.y) == (0, 90, 120, 440)


def test_center_crop() -> None:
    assert CenterCrop().draw(340, 256, 224, rng()) == Crop(x=42, y=0, width=256, height=256)
    assert CenterCrop().draw(255, 340, 224, rng()) == Crop(x=0, y=42, width=255, height=255)


@pytest.mark.parametrize("kind", list(AUGMENTATIONS.values()))
def test_flip_is_off_by_default_and_has_the_probability_asked_for(kind: type[Augmentation]) -> None:
    generator = rng(3)
    assert not any(kind().draw(340, 256, 224, generator).flip for _ in range(50))
    assert all(kind(flip=1.0).draw(340, 256, 224, generator).flip for _ in range(50))
    flips = sum(kind(flip=0.3).draw(340, 256, 224, generator).flip for _ in range(1000))
    assert 250 < flips < 350
    assert [kind(flip=0.5).draw(340, 256, 224, rng(i)).x for i in range(9)] == [
        kind().draw(340, 256, 224, rng(i)).x for i in range(9)
    ]


def test_names_and_pickles() -> None:
    assert {name: build() for name, build in AUGMENTATIONS.items()} == {
        "center": CenterCrop(),
        "multi-scale": MultiScaleCrop(),
        "random-resized": RandomResizedCrop(),
    }
    for augment in ALL:
        assert pickle.loads(pickle.dumps(augment)) == augment


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CenterCrop().draw(0, 256, 224, rng()), "at least 1 pixel in each direction, got width=0"),
    ],
)
def test_wrong_settings_are_refused(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_parts_lie_in_the_whole_and_depend_on_nothing_but_their_generator():
    rule = NestedCrop()
    for seed in range(50):
        rngs = [np.random.default_rng((seed, view)) for view in range(3)]
        whole, *parts = rule.views(300, 200, 64, rngs)
        assert whole == rule.draw(300, 200, 64, np.random.default_rng((seed, 0)))
        for part in parts:
            assert whole.x <= part.x <= whole.x + whole.width - part.width
            assert whole.y <= part.y <= whole.y + whole.height - part.height
            assert 0.25 < part.width * part.height / (whole.width * whole.height) < 0.65
        assert parts[0] != parts[1]


def test_all_views_share_the_crop_of_the_first():
    rule, inner = SharedCrop(crop=RandomResizedCrop(flip=0.5)), RandomResizedCrop(flip=0.5)
    seen = set()
    for seed in range(20):
        rngs = [np.random.default_rng((seed, view)) for view in range(3)]
        crops = rule.views(300, 200, 64, rngs)
        assert crops == [inner.draw(300, 200, 64, np.random.default_rng((seed, 0)))] * 3
        seen.add(crops[0])
    assert {crop.flip for crop in seen} == {False, True}
