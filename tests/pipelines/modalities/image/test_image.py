"""The image loader: crops, views, members of several formats, bad samples and illegal settings."""

import errno
import itertools
import os

import cv2
import numpy as np
import pytest
import torch

from maskstream.pipelines.augment import CenterCrop, RandomResizedCrop
from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.masks import MotionGuided, Random
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData, image_loader
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.shards.errors import OutageError, ResumeError
from maskstream.shards.format.sample import Sample
from maskstream.shards.format.verify import verify
from maskstream.shards.members.image import make_image_member

from ....splits import write_samples
from .test_decode import photo

OPTIONS = {"device": "cpu", "rank": 0, "world_size": 1}


def member(pixels, form, width=None):
    ok, data = cv2.imencode(f".{form}", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    assert ok
    return make_image_member(data.tobytes(), width or pixels.shape[1], pixels.shape[0])


def write(folder, samples):
    return write_samples(
        folder,
        [Sample(key=f"s{i}", members=members, source=f"{i}", label=i) for i, members in enumerate(samples)],
        "image",
        profile="image",
        label_names=("a", "b", "c"),
    )


@pytest.fixture
def split(tmp_path):
    """Three samples, a jpg, a png and a webp, of 200 x 160 pixels."""
    return split_of(tmp_path, ("jpg", "png", "webp"))


def split_of(tmp_path, forms):
    return write(tmp_path / "split", [{form: member(photo(200, 160, i), form)} for i, form in enumerate(forms)])


def batch_of(split, **settings):
    loader = image_loader(split, batch_size=3, shuffle=False, patch=8, **{"size": 32, **settings}, **OPTIONS)
    (batch,) = loader
    loader.close()
    return batch


def test_central_crops_of_members_of_all_forms(split):
    batch = batch_of(split)
    assert isinstance(batch, ImageBatch)
    assert (batch.image.dtype, tuple(batch.image.shape)) == (torch.uint8, (3, 32, 32, 3))
    assert (batch.key, batch.label.tolist(), batch.mask) == (["s0", "s1", "s2"], [0, 1, 2], None)
    for i in range(3):
        wanted = cv2.resize(photo(200, 160, i)[:, 20:180], (32, 32), interpolation=cv2.INTER_AREA)
        assert np.abs(batch.image[i].numpy().astype(int) - wanted).mean() < 3


def test_pixels_that_are_stored_are_those_of_a_png(tmp_path):
    (tmp_path / "png").mkdir()
    split = split_of(tmp_path, ("ppm",) * 3)
    assert not verify(split, decode=True).problems
    augment = RandomResizedCrop(scale=(0.2, 1.0), flip=0.5)
    stored, png = (batch_of(one, augment=augment) for one in (split, split_of(tmp_path / "png", ("png",) * 3)))
    assert torch.equal(stored.image, png.image)


def test_views_are_different_crops_of_one_image(split):
    augment = RandomResizedCrop(scale=(0.2, 1.0), flip=0.5)
    batch = batch_of(split, views=2, augment=augment, mask=Random(ratio=0.75))
    assert batch.key == ["s0", "s0", "s1", "s1", "s2", "s2"]
    assert batch.label.tolist() == [0, 0, 1, 1, 2, 2]
    assert batch.mask is not None
    assert tuple(batch.mask.visible.shape) == (6, 4)
    assert not torch.equal(batch.mask.visible[0], batch.mask.visible[1])
    assert not torch.equal(batch.image[0], batch.image[1])
    one = batch_of(split, augment=augment, mask=Random(ratio=0.75))
    assert torch.equal(batch.mask.visible[::2], one.mask.visible)
    assert torch.equal(batch.image[2], one.image[1])  # a png: decoded in full, whatever the other views need


def test_colour_jitter_changes_only_the_pixels(split):
    plain, coloured = batch_of(split), batch_of(split, colour=ColourJitter(brightness=0.5))
    assert not torch.equal(plain.image, coloured.image)
    ratio = coloured.image.float().mean((1, 2, 3)) / plain.image.float().mean((1, 2, 3))
    assert ((ratio > 0.45) & (ratio < 1.55)).all()
    assert ratio.std() > 0
    assert torch.equal(batch_of(split, colour=ColourJitter(brightness=0.5)).image, coloured.image)


def test_a_large_jpeg_is_decoded_at_reduced_resolution(split):
    sampler = ImageData(size=32, patch=8).sampler(Split.open(split, "image", device="cpu", shuffle=False))
    assert [plan.n for plan in sampler.request(Wanted.of(range(3))).plans] == [4, 1, 1]
    large = ImageData(size=104, patch=8).sampler(Split.open(split, "image", device="cpu", shuffle=False))
    assert large.request(Wanted.of([0])).plans[0].n == 1


def test_pixel_values_are_normalised_as_imagenet_is(split):
    batch = batch_of(split)
    wanted = batch.image.double().div(255).sub(torch.tensor(IMAGENET_MEAN)).div(torch.tensor(IMAGENET_STD))
    torch.testing.assert_close(batch.pixel_values().double(), wanted.permute(0, 3, 1, 2), atol=1e-5, rtol=0)
    assert batch.pixel_values().is_contiguous()
    assert batch.pixel_values(dtype=torch.bfloat16).dtype == torch.bfloat16


def test_one_of_several_images_must_be_named(tmp_path):
    pair = {"left.jpg": member(photo(64, 64, 0), "jpg"), "right.png": member(photo(64, 64, 1), "png")}
    split = write(tmp_path / "split", [pair] * 3)
    with pytest.raises(ValueError, match=r"2 components are image: left\.jpg, right\.png; choose one with component="):
        batch_of(split)
    left, right = batch_of(split, component="left.jpg"), batch_of(split, component="right.png")
    assert np.abs(left.image[0].numpy().astype(int) - right.image[0].numpy()).mean() > 5
    with pytest.raises(ValueError, match=r"component='depth\.png'"):
        batch_of(split, component="depth.png")


def test_a_sample_with_two_images_is_a_bad_one_where_the_others_have_one(tmp_path, caplog):
    one = {"png": member(photo(64, 64, 0), "png")}
    split = write(tmp_path / "split", [one, one, {**one, "webp": member(photo(64, 64, 1), "webp")}])
    assert set(batch_of(split, max_bad_fraction=1.0).key) == {"s0", "s1"}
    assert "the sample has several of them; choose one with component=" in caplog.text


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.ENOMEM])
def test_a_disk_that_fails_replaces_no_sample(split, code, monkeypatch, caplog):
    loader = image_loader(split, batch_size=1, size=64, patch=8, shuffle=False, max_bad_fraction=1.0, device="cpu")
    pread, reads = os.pread, itertools.count()

    def failing(*where):
        if next(reads) > 1:
            raise OSError(code, os.strerror(code))
        return pread(*where)

    monkeypatch.setattr(os, "pread", failing)
    with pytest.raises(OutageError, match=os.strerror(code)):
        list(loader)
    assert "replaced" not in caplog.text


def test_a_sample_without_the_component_is_replaced(split, caplog):
    assert set(batch_of(split, component="jpg", max_bad_fraction=1.0).key) == {"s0"}
    assert "component 'jpg': the sample has no such component" in caplog.text


def test_an_image_of_another_size_is_found_by_verify_and_replaced_by_the_loader(tmp_path, caplog):
    good = [{"png": member(photo(64, 64, i), "png")} for i in range(2)]
    split = write(tmp_path / "split", [*good, {"png": member(photo(64, 64, 2), "png", width=65)}])
    report = verify(split, decode=True)
    assert "has 64x64 pixels, not 65x64" in "; ".join(report.problems)
    batch = batch_of(split, max_bad_fraction=1.0)
    assert "s2" not in batch.key
    assert "has 64x64 pixels, not 65x64" in caplog.text


def test_a_member_that_is_no_image_is_found_by_verify(tmp_path):
    split = write(tmp_path / "split", [{"jpg": make_image_member(b"no image", 4, 4)}] * 2)
    assert "is not a JPEG, PNG, WebP, PPM or PGM file: it begins with" in "; ".join(verify(split).problems)


def test_a_position_of_the_resize_before_is_refused(split):
    loader = image_loader(split, batch_size=1, size=32, patch=8, **OPTIONS)
    before = {name: value for name, value in loader.state_dict().items() if name != "pixels"}
    with pytest.raises(
        ResumeError, match=r"pixels: saved nothing, here 2\)\. This release computes pixels differently"
    ):
        loader.load_state_dict(before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 30}, "an image of 30 px does not divide into patches of 8 px"),
        ({"views": 0}, "views must be"),
        ({"mask": MotionGuided()}, "needs flow, but images have only frames"),
    ],
)
def test_illegal_settings_are_refused(split, settings, message):
    with pytest.raises(ValueError, match=message):
        batch_of(split, **settings)


def test_data_is_what_the_loader_takes(split):
    data = ImageData(size=32, patch=8, mask=Random(ratio=0.5), augment=CenterCrop())
    assert ImageData.from_dict(data.to_dict()) == data
    assert data.grids["image"].shape == (4, 4)
    loader = data.loader(split, batch_size=3, shuffle=False, **OPTIONS)
    (batch,) = loader
    loader.close()
    assert torch.equal(batch.image, batch_of(split).image)
    assert tuple(batch.mask.visible.shape) == (3, 8)
    with pytest.raises(ValueError, match="does not divide into patches"):
        ImageData(size=30, patch=8)
