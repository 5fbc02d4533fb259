"""The points loader: views, noise, cues, and the bytes that are read."""

import numpy as np
import pytest
import torch

from maskstream.pipelines import masks, points_loader
from maskstream.pipelines.augment.diffusion import CosineNoise, LinearNoise
from maskstream.pipelines.masks import Draw, Mask
from maskstream.pipelines.modalities.points.read import PointAugment, PointSelection
from maskstream.pipelines.modalities.points.tokens import GroupTokens, VoxelTokens, find_occupied_tokens
from maskstream.preprocess import make_shards
from maskstream.shards.errors import SampleError

from ...every_modality import write_split


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split("points", tmp_path_factory.mktemp("points"))


def opened(split, **settings):
    options = {"select": PointSelection(points=64), "batch_size": 3, "seed": 1, "threads": 1, "device": "cpu"}
    return points_loader(split, **options | settings)


class Occupied(Mask):
    """Hides the tokens that are not occupied; it needs the mask input `occupied`."""

    @property
    def needs(self):
        return frozenset({"occupied"})

    @property
    def needs_progress(self):
        return False

    def hide(self, grid, draw: Draw):
        return ~draw.cues.need("occupied", "Occupied")


def test_views_share_the_points_and_nothing_else(split):
    batch = next(iter(opened(split, views=3, noise=LinearNoise(), mask=masks.Random(ratio=0.5))))
    assert batch.points.shape == (9, 64, 3)
    assert batch.key == [key for key in batch.key[::3] for _ in range(3)]
    for first in range(0, 9, 3):
        assert torch.equal(batch.points[first], batch.points[first + 1])
        assert not torch.equal(batch.noise[first], batch.noise[first + 1])
        assert not torch.equal(batch.mask.masked[first], batch.mask.masked[first + 1])
    turned = next(iter(opened(split, views=2, augment=PointAugment(rotate="any"))))
    assert not torch.allclose(turned.points[0], turned.points[1])
    radius = turned.points.norm(dim=2)
    torch.testing.assert_close(radius[0], radius[1], atol=1e-5, rtol=0)


def test_noise_is_standard_normal_and_times_are_uniform(split):
    loader = opened(split, noise=LinearNoise(times=50), select=PointSelection(points=500), batch_size=15)
    batches = [batch for epoch in range(20) for batch in loader]
    noise = torch.cat([batch.noise for batch in batches])
    assert noise.mean().abs() < 0.01
    assert noise.std() == pytest.approx(1, abs=0.01)
    times = torch.cat([batch.time for batch in batches])
    assert times.min() <= 2
    assert times.max() >= 47
    assert times.float().mean() == pytest.approx(24.5, abs=3)
    assert next(iter(opened(split))).noise is None


@pytest.mark.parametrize("occupancy", ["noised", "clean"])
def test_masks_get_the_occupied_tokens(split, occupancy):
    noise, tokens = LinearNoise(), VoxelTokens(resolution=16, patch=4, occupancy=occupancy)
    batch = next(iter(opened(split, tokens=tokens, noise=noise, mask=masks.Padded(mask=Occupied()))))
    seen = noise.noised(batch.points, batch.noise, batch.time) if occupancy == "noised" else batch.points
    assert torch.equal(batch.mask.masked, ~find_occupied_tokens(seen, 16, 4))


def test_groups_are_tokens_on_one_axis(split):
    loader = opened(split, tokens=GroupTokens(groups=10), mask=masks.Random(ratio=0.6))
    assert next(iter(loader)).mask.visible.shape == (3, 4)


def test_a_batch_reads_only_its_rows(split):
    loader = opened(split, select=PointSelection(points=20), shuffle=False)
    batches = list(loader)
    rows = loader.stats()["read_bytes"]
    assert rows == 15 * 20 * 16
    assert torch.cat([b.points for b in batches]).norm(dim=2).amax(dim=1).allclose(torch.ones(len(batches) * 3))


def test_a_cloud_without_the_columns_is_a_bad_sample(split):
    with pytest.raises(SampleError, match="4 columns, fewer than x, y, z and features=3"):
        next(iter(opened(split, select=PointSelection(features=3))))


def test_illegal_settings_are_refused(split):
    with pytest.raises(ValueError, match="views must be"):
        opened(split, views=0)
    with pytest.raises(ValueError, match="not a positive multiple"):
        VoxelTokens(resolution=30)
    with pytest.raises(ValueError, match="at least 1"):
        GroupTokens(groups=0)


def test_noise_keeps_variance_and_its_formula():
    noise = LinearNoise()
    kept = noise.kept()
    assert kept[0].item() == pytest.approx(1 - 1e-4)
    assert kept[-1].item() == pytest.approx(np.prod(1 - np.linspace(1e-4, 0.02, 1000)))
    generator = torch.Generator().manual_seed(0)
    clean, drawn = torch.randn(2, 2, 5000, 3, generator=generator)
    time = torch.tensor([0, 999])
    noised = noise.noised(clean, drawn, time)
    assert noised.dtype == torch.float32
    assert noised.std() == pytest.approx(1, abs=0.03)
    torch.testing.assert_close(noised[1], drawn[1], atol=0.05, rtol=0)
    for wrong in ({"times": 1}, {"first": 0.0}, {"first": 0.1, "last": 0.05}, {"last": 1.0}):
        with pytest.raises(ValueError, match="got"):
            LinearNoise(**wrong)


def test_cosine_noise_follows_its_formula_and_ends_above_0():
    noise = CosineNoise(times=50, offset=0.01)
    kept = noise.kept().numpy()
    at = (np.arange(1, 51) / 50 + 0.01) / 1.01
    start = np.cos(np.pi / 2 * 0.01 / 1.01) ** 2
    np.testing.assert_allclose(kept[:-1], np.cos(np.pi / 2 * at[:-1]) ** 2 / start)
    assert kept[-1] == pytest.approx(kept[-2] * 1e-3)
    assert (np.diff(kept) < 0).all()
    linear, cosine = (kind.kept() for kind in (LinearNoise(), CosineNoise()))
    assert ((linear <= 0.1).sum(), (cosine <= 0.1).sum()) == (525, 207)
    for wrong in ({"times": 1}, {"offset": 1.0}, {"most": 1.0}):
        with pytest.raises(ValueError, match="got"):
            CosineNoise(**wrong)


NAMED = "//X Y Z Nx Ny Nz R G B Classification\n"


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A split of clouds whose normals are their places on the unit sphere and whose columns have names; y points up."""
    root = tmp_path_factory.mktemp("named")
    for cloud in range(4):
        places = np.random.default_rng(cloud).normal(size=(80, 3))
        places /= np.linalg.norm(places, axis=1, keepdims=True)
        numbers = np.arange(80)[:, None]
        rows = np.concatenate([places, places, numbers * [1, 0, 0] + [0, cloud, 255], numbers % 5], axis=1)
        np.savetxt(root / f"{cloud}.xyz", rows, header=NAMED.strip("/\n"), comments="//")
    make_shards("points-folder", root, root / "out", workers=0, as_is=True, settings=["up=y"])
    return root / "out" / "train"


def test_features_are_taken_by_name_in_the_order_asked_for(named):
    for wanted in (("class", "blue", "green"), ("green", "class")):
        select = PointSelection(points=64, features=wanted)
        batch = next(iter(opened(named, select=select, augment=PointAugment(normalise="none"))))
        assert batch.points.shape == (3, 64, 3 + len(wanted))
        column = {name: batch.points[..., 3 + n] for n, name in enumerate(wanted)}
        assert set(column["class"].unique().tolist()) == {0, 1, 2, 3, 4}
        assert (column["green"].amax(dim=1) * 255).round().unique().numel() == 3
        assert "blue" not in column or (column["blue"] == 1).all()
    by_number = next(iter(opened(named, select=PointSelection(points=64, features=3))))
    assert by_number.points.shape == (3, 64, 6)


def test_a_feature_that_a_cloud_lacks_is_named_with_those_that_it_has(named, split):
    with pytest.raises(SampleError, match="no feature 'intensity', but red, green, blue, normal_x, "):
        next(iter(opened(named, select=PointSelection(features=("intensity",)))))
    with pytest.raises(SampleError, match="none with a name"):
        next(iter(opened(split, select=PointSelection(features=("red",)))))
    with pytest.raises(ValueError, match="each column after x, y, z once"):
        PointSelection(features=("x", "red"))


@pytest.mark.parametrize("rotate", ["any", "up"])
def test_normals_turn_with_their_points_about_the_upward_axis(named, rotate):
    select = PointSelection(points=64, features=("normal_z", "normal_x", "normal_y"))
    still, turned = (
        next(iter(opened(named, select=select, augment=PointAugment(normalise="none", rotate=one)))).points
        for one in (None, rotate)
    )
    torch.testing.assert_close(turned[..., [4, 5, 3]], turned[..., :3], atol=1e-5, rtol=0)
    assert not torch.allclose(turned[..., 0], still[..., 0], atol=0.01)
    assert torch.allclose(turned[..., 1], still[..., 1], atol=1e-5) == (rotate == "up")


def test_the_upward_axis_is_the_splits_and_part_of_the_identity(named, split):
    up, y, z = (opened(named, augment=PointAugment(rotate=one)).state_dict() for one in ("up", "y", "z"))
    assert up == y != z
    with pytest.raises(ValueError, match="does not say which axis points upwards"):
        opened(split, augment=PointAugment(rotate="up"))
