"""Native crops: whole patches of native scale, within `least` and `most`, and within the picture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskstream.pipelines.augment import Native
from maskstream.pipelines.stream.rng import sample_numbers, sample_rng

SIDES = st.integers(1, 3000)
NUMBERS = st.floats(0, 1, exclude_max=True)


@given(st.lists(st.tuples(SIDES, SIDES, NUMBERS, NUMBERS), min_size=1, max_size=20), st.booleans())
@settings(max_examples=50, deadline=None)
def test_crops_lie_in_the_picture_and_have_a_legal_number_of_whole_patches(
    pictures: list[tuple[int, int, float, float]], shuffle: bool
) -> None:
    native = Native(patch=16, least=16, most=256).resolved(shuffle=shuffle)
    width, height = (np.array([one[side] for one in pictures]) for side in (0, 1))
    crops = native.crops(width, height, np.array([one[2:] for one in pictures]))
    assert (crops.width >= 1).all()
    assert (crops.width <= width).all()
    assert (crops.height >= 1).all()
    assert (crops.height <= height).all()
    patches = crops.rows * crops.columns
    assert (patches >= 16).all()
    assert (patches <= 256).all()
    if not shuffle:
        assert (crops.width == width).all()
        assert (crops.height == height).all()
    for i, (w, h, *_) in enumerate(pictures):  # a place is found for each, which is a legal crop
        crop = native.place(w, h, int(crops.width[i]), int(crops.height[i]), np.random.default_rng(i))
        assert 0 <= crop.x <= w - crop.width
        assert 0 <= crop.y <= h - crop.height


@given(w=st.integers(64, 500), h=st.integers(64, 500), area=NUMBERS, aspect=NUMBERS)
@settings(max_examples=50, deadline=None)
def test_a_crop_within_the_limits_is_not_resampled(w: int, h: int, area: float, aspect: float) -> None:
    native = Native(patch=8, least=1, most=4096).resolved(shuffle=True)
    crops = native.crops(np.array([w]), np.array([h]), np.array([[area, aspect]]))
    assert crops.width[0] == crops.columns[0] * 8
    assert crops.height[0] == crops.rows[0] * 8
    share = (crops.width[0] * crops.height[0]) / (w * h)
    assert 0.2 * (1 - 8 / 20) ** 2 - 0.05 <= share <= 1  # up to a patch is cut off each side


@given(st.lists(st.tuples(SIDES, SIDES, NUMBERS, NUMBERS), min_size=1, max_size=20), st.booleans())
@settings(max_examples=40, deadline=None)
def test_rows_and_columns_can_be_multiples(pictures: list[tuple[int, int, float, float]], shuffle: bool) -> None:
    native = Native(patch=14, least=16, most=300, multiple=2).resolved(shuffle=shuffle)
    width, height = (np.array([one[side] for one in pictures]) for side in (0, 1))
    crops = native.crops(width, height, np.array([one[2:] for one in pictures]))
    assert (crops.rows % 2 == 0).all()
    assert (crops.columns % 2 == 0).all()
    assert (crops.rows * crops.columns >= 16).all()
    assert (crops.rows * crops.columns <= 300).all()
    assert (crops.width <= width).all()
    assert (crops.height <= height).all()


def test_a_whole_picture_keeps_its_aspect() -> None:
    native = Native(patch=16, most=256).resolved(shuffle=False)
    width, height = np.array([640, 200, 4000, 16]), np.array([480, 300, 250, 2000])
    crops = native.crops(width, height, np.zeros((4, 2)))
    assert list(zip(crops.rows.tolist(), crops.columns.tolist(), strict=True)) == [
        (13, 18),
        (19, 12),
        (4, 64),
        (125, 1),
    ]


def test_a_replacement_is_cropped_to_the_shape_of_what_it_replaces() -> None:
    native = Native(patch=16)
    assert native.fitting(500, 400, 3, 5) == (80, 48)
    assert native.fitting(40, 400, 3, 5) == (40, 24)
    assert native.fitting(1, 1, 3, 5) == (1, 1)


def test_numbers_are_uniform_and_a_function_of_what_names_them() -> None:
    keys = [f"k{i}" for i in range(2000)]
    numbers = sample_numbers(7, [(1, key) for key in keys], 0, "native")
    assert numbers.shape == (2000, 2)
    assert 0 <= numbers.min() <= numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(numbers.T)[0, 1]) < 0.06
    assert (sample_numbers(7, [(1, keys[5])], 0, "native") == numbers[5]).all()
    others = [(8, 1, 0, "native"), (7, 2, 0, "native"), (7, 1, 1, "native"), (7, 1, 0, "crop")]
    for seed, epoch, view, purpose in others:
        assert (sample_numbers(seed, [(epoch, keys[0])], view, purpose) != numbers[:1]).all()
    assert sample_rng(7, 1, "k0", 0, "native").random() != numbers[0, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"least": 20, "most": 10}, "least=20, most=10"),
        ({"scale": (0.5, 0.2)}, r"\(0.5, 0.2\)"),
        ({"ratio": (1.5, 2.0)}, r"\(1.5, 2.0\)"),
        ({"least": 1, "most": 3, "multiple": 2}, "most=3 is too small: with multiple=2"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Native(**settings)  # type: ignore[arg-type]
