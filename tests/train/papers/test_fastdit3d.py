"""The masked diffusion transformer over voxels: what it depends on, costs and learns, and the bounds of its error."""

import math

import pytest
import torch

from maskstream.pipelines.augment.diffusion import CosineNoise, LinearNoise
from maskstream.pipelines.masks import Draw, MaskBatch
from maskstream.pipelines.modalities.points.batch import PointsBatch
from maskstream.pipelines.modalities.points.tokens import (
    compute_voxel_grid,
    number_point_tokens,
    scale_to_voxels,
    voxelise,
)
from maskstream.pipelines.stream.rng import Place
from maskstream.train.core.step import count_flops
from maskstream.train.nn.grid import build_axis_sinusoids
from maskstream.train.papers.fastdit3d.evaluate import sample_clouds
from maskstream.train.papers.fastdit3d.model import ConditionedBlock, Experts, VoxelDiffusionConfig
from maskstream.train.papers.fastdit3d.noise_errors import MaskedErrors, compute_bound_error
from maskstream.train.recipes import named_recipe

SMALL = {"width": 48, "depth": 2, "heads": 2, "decoder_width": 24, "decoder_depth": 2, "decoder_heads": 2}


def built(patch=2, **changes):
    """A model of 16^3 voxels."""
    config = VoxelDiffusionConfig(**{"categories": 5, "window": 4, **SMALL, **changes})
    return config.build({"points": compute_voxel_grid(16, patch)})


def woken(model, seed=0):
    """The model with weights that are not zero, so that all of its parts speak."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modulation" in name or "head" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def inputs(batch=3, n=100, tokens=512, visible=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    points, noise = torch.randn(2, batch, n, 3, generator=generator)
    time = torch.randint(0, 1000, (batch,), generator=generator)
    label = torch.randint(-1, 5, (batch,), generator=generator)
    seen = torch.stack([torch.randperm(tokens, generator=generator)[:visible].sort().values for _ in range(batch)])
    return points, noise, time, label, seen, torch.ones(batch)


def batch_of(points, noise, time, label, visible, weight, patch=2):
    mask = MaskBatch(
        grid=compute_voxel_grid(16, patch), masked=visible, visible=visible, target=visible, weight=visible
    )
    rows = {"noise": noise, "time": time, "mask": mask, "label": label, "weight": weight}
    return PointsBatch(points=points, key=["a"] * len(points), **rows)


def test_at_first_it_knows_mean_and_variance_only():
    model = built()
    points, noise, time, label, visible, _ = inputs()
    kept = LinearNoise().kept()[time].float()[:, None, None]
    noised = model.noise.noised(points, noise, time)
    torch.testing.assert_close(model.predict(noised, time, label, visible), (1 - kept).sqrt() * noised)
    points, noise, time, label, visible, weight = inputs(batch=64)
    loss = model(batch_of(points, noise, time, label, visible, weight)).loss().item()
    assert loss == pytest.approx(model.measure_baseline_loss(time).mean().item(), rel=0.05)


def test_the_encoder_sees_the_visible_tokens_only(monkeypatch):
    model = woken(built()).eval()
    points, noise, time, label, visible, _ = inputs()
    noised = model.noise.noised(points, noise, time)
    tokens = torch.randn(3, 512, 24, generator=torch.Generator().manual_seed(0), requires_grad=True)
    monkeypatch.setattr(model, "split", lambda grid: tokens)
    model.predict(noised, time, label, visible).square().sum().backward()
    reached = [row.any(dim=1).nonzero().flatten().tolist() for row in tokens.grad]
    assert reached == visible.tolist()


def test_without_a_mask_every_token_is_seen():
    model = woken(built()).eval()
    points, noise, time, label, visible, _ = inputs()
    noised = model.noise.noised(points, noise, time)
    everything = torch.arange(512).expand(3, -1)
    whole = model.predict(noised, time, label)
    assert torch.equal(whole, model.predict(noised, time, label, everything))
    assert not torch.allclose(whole, model.predict(noised, time, label, visible))


def test_without_a_mask_a_share_of_the_tokens_can_be_shown_the_fullest(monkeypatch):
    model = built(shown=0.1).eval()
    noised = torch.randn(3, 200, 3, generator=torch.Generator().manual_seed(2))
    asked = []
    monkeypatch.setattr(model, "_encode", lambda tokens, visible, *rest: asked.append(visible) or tokens.new_zeros(1))
    monkeypatch.setattr(model, "_decode", lambda *rest: torch.zeros(3, 512, 24))
    model.predict(noised, torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))
    (visible,) = asked
    assert visible.shape == (3, 51)
    assert (visible.diff(dim=1) > 0).all()
    tokens = number_point_tokens(scale_to_voxels(noised, 16), 16, 2)
    for shown, of in zip(visible, tokens, strict=True):
        counts = torch.bincount(of, minlength=512)
        hidden = torch.ones(512, dtype=torch.bool).scatter(0, shown, False)
        assert counts[shown].min() >= counts[hidden].max()


def test_with_counts_a_voxel_says_how_many_points_it_has():
    model = built(counts=True)
    places = torch.tensor([[[1.0, 2, 3], [1, 2, 3], [1.2, 2, 3], [-9, -9, -9]]])
    voxels = voxelise(torch.cat((places, places), dim=1), 16)
    features = model._features(voxels)
    assert features.shape == (1, 4, 16, 16, 16)
    torch.testing.assert_close(features[:, :3], voxels.features)
    densities = features[0, 3].expm1()
    assert sorted(densities[densities > 0].tolist()) == pytest.approx(
        sorted((voxels.counts[voxels.counts > 0] * 512).tolist())
    )
    assert model.embed.in_features == 4 * 8
    points, noise, time, label, visible, _ = inputs()
    noised = model.noise.noised(points, noise, time)
    woken(model)
    twice = model.predict(noised.repeat(1, 2, 1), time, label, visible)
    torch.testing.assert_close(twice[:, :100], model.predict(noised, time, label, visible), atol=1e-5, rtol=1e-4)


def test_the_cosine_schedule_is_that_of_the_loader_and_of_the_model():
    model = built(schedule="cosine", times=100)
    assert model.noise == CosineNoise(times=100)
    time = torch.tensor([0, 40, 99])
    torch.testing.assert_close(model.measure_baseline_loss(time), CosineNoise(times=100).kept()[time].float())
    made = sample_clouds(model, torch.tensor([0, 1]), torch.Generator().manual_seed(0), points=50, steps=10)
    assert torch.isfinite(made).all()


def test_time_category_and_every_cloud_by_itself():
    model = woken(built()).eval()
    points, noise, time, label, visible, _ = inputs()
    noised = model.noise.noised(points, noise, time)
    out = model.predict(noised, time, label, visible)
    assert not torch.allclose(out, model.predict(noised, (time + 300) % 1000, label, visible))
    assert not torch.allclose(out, model.predict(noised, time, (label + 2) % 6 - 1, visible))
    for i in range(3):
        alone = model.predict(noised[i : i + 1], time[i : i + 1], label[i : i + 1], visible[i : i + 1])
        torch.testing.assert_close(alone[0], out[i], atol=1e-5, rtol=1e-4)


def test_the_order_of_points_does_not_matter():
    model = woken(built()).eval()
    points, noise, time, label, visible, _ = inputs()
    noised = model.noise.noised(points, noise, time)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(3))
    out = model.predict(noised, time, label, visible)
    torch.testing.assert_close(
        model.predict(noised[:, order], time, label, visible), out[:, order], atol=1e-5, rtol=1e-4
    )


def test_a_cloud_of_weight_0_does_not_count():
    model = woken(built())
    points, noise, time, label, visible, _ = inputs()
    weight = torch.tensor([1.0, 0.0, 1.0])
    other = points.clone()
    other[1] += 5
    a, b = (model(batch_of(p, noise, time, label, visible, weight)).loss() for p in (points, other))
    torch.testing.assert_close(a, b)


def test_windows_come_back_and_hold_neighbours():
    cube = torch.arange(2 * 8**3, dtype=torch.float32).view(2, 8**3, 1)
    block, seen = ConditionedBlock(12, 1, 1, 4), []
    block.attention = torch.nn.Identity()
    block.attention.register_forward_hook(lambda module, given, made: seen.append(given[0]))
    for moved in (False, True):
        assert torch.equal(block.apply_window_attention(cube, 4, moved), cube)
        assert seen[-1].shape == (2 * 8, 64, 1)
    first, middle = (windows[0, :, 0].long() for windows in seen)
    assert {(v // 64, v // 8 % 8, v % 8) for v in first.tolist()} == {
        (x, y, z) for x in range(4) for y in range(4) for z in range(4)
    }
    assert {v // 64 for v in middle.tolist()} == {2, 3, 4, 5}


def test_positions_tell_all_tokens_apart():
    positions = build_axis_sinusoids((8, 8, 8), 48)
    assert positions.shape == (512, 48)
    assert torch.cdist(positions, positions).fill_diagonal_(9).min() > 0.1
    assert torch.equal(positions[0, :16], positions[7, :16])


def test_a_category_keeps_to_its_expert():
    torch.manual_seed(0)
    experts = Experts(12, 4, 3)
    category = torch.randn(40, 12)
    chosen, share = experts.route(category)
    assert set(chosen.tolist()) == {0, 1, 2}
    x = torch.randn(40, 5, 12)
    out = experts(x, category)
    for i in range(40):
        e = int(chosen[i])
        inner = torch.nn.functional.gelu(x[i] @ experts.up[e].T + experts.up_bias[e])
        want = (inner @ experts.down[e].T + experts.down_bias[e]) * share[i]
        torch.testing.assert_close(out[i], want, atol=1e-5, rtol=1e-4)
    experts(x[chosen == 0], category[chosen == 0]).sum().backward()
    assert experts.up.grad[0].any()
    assert not experts.up.grad[1:].any()
    assert experts.router.weight.grad.any()


def test_masks_save_most_of_the_arithmetic():
    model = built(width=96, depth=4)

    def count(given):
        return count_flops(model, lambda: model(batch_of(*given)).loss())

    few, all_of_them = (count(inputs(batch=1, visible=v)) for v in (8, 512))
    assert few < 0.15 * all_of_them


def test_the_tiny_recipe_shows_few_tokens_then_all_that_hold_points():
    recipe = named_recipe("fastdit3d-tiny")
    tokens = recipe.data.tokens
    clean = torch.randn(2048, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.4, 1.0, 0.2])
    cues = tokens.cues(clean, clean)
    seen = [
        ~recipe.data.mask.hide(tokens.grid, Draw.of(0, 0, "a", 0, Place(progress=progress), cues))
        for progress in (0.0, 0.5, 0.501, 1.0)
    ]
    assert [int(visible.sum()) for visible in seen] == [76, 76, 163, 163]
    shares = [visible[cues.occupied].mean() for visible in seen]
    assert shares == pytest.approx([0.25, 0.25, 1, 1], abs=0.01)
    assert int(recipe.model.shown * tokens.grid.size) == 163


def test_it_learns_one_cloud():
    model = built(patch=4, window=2, experts=2)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    line = torch.linspace(-1, 1, 100)
    cloud = torch.stack([line * 1.7, line.sign(), 0 * line], dim=1).expand(8, -1, -1)
    shares = []
    for step in range(60):
        _, noise, time, _, visible, weight = inputs(batch=8, tokens=64, visible=12, seed=step)
        loss = model(batch_of(cloud, noise, time, torch.zeros_like(time), visible, weight, patch=4)).loss()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        shares.append(loss.item() / model.measure_baseline_loss(time).mean().item())
    assert sum(shares[-15:]) < 0.8 * sum(shares[:15])


def test_sampling_repeats_and_refuses_what_it_cannot_do():
    model = woken(built()).eval()
    label = torch.tensor([0, -1])
    settings = [{}, {"eta": 1.0}, {"steps": 1}]
    for options in settings:
        made = [
            sample_clouds(model, label, torch.Generator().manual_seed(1), points=30, **{"steps": 4} | options)
            for _ in "ab"
        ]
        assert made[0].shape == (2, 30, 3)
        assert torch.isfinite(made[0]).all()
        assert torch.equal(*made)
    for wrong in ({"steps": 0}, {"steps": 1001}, {"eta": 2.0}, {"points": 0}):
        with pytest.raises(ValueError, match="got steps="):
            sample_clouds(model, label, torch.Generator(), **wrong)


def test_with_the_true_velocity_sampling_ends_in_the_cloud(monkeypatch):
    """DDIM with a perfect model of one point comes back to it, from any noise."""
    model = built().eval()
    goal = torch.tensor([0.3, -0.7, 1.1])
    kept = model.noise.kept()

    def perfect(x, time, label):
        a = float(kept[time[0]])
        return (x - math.sqrt(a) * goal) / math.sqrt(1 - a)

    monkeypatch.setattr(model, "predict", perfect)
    for eta in (0.0, 1.0):
        made = sample_clouds(model, torch.zeros(2, dtype=torch.int64), torch.Generator(), points=20, steps=50, eta=eta)
        torch.testing.assert_close(made, goal.expand(2, 20, 3), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"window": 3},
        {"width": 50},
        {"decoder_heads": 5},
        {"depth": 0},
        {"experts": 0},
        {"times": 1},
        {"shown": 0.0},
        {"shown": 1.5},
        {"schedule": "square"},
    ],
)
def test_impossible_sizes_are_refused(changes):
    with pytest.raises(ValueError, match=r"got|divide|multiple"):
        built(**changes)


def errors(cloud, kept, times=12):
    generator = torch.Generator().manual_seed(0)
    return sum(compute_bound_error(cloud, kept, generator) for _ in range(times)) / times


def test_of_a_normal_cloud_nothing_but_mean_and_variance_can_be_known():
    cloud = torch.randn(8192, 3, generator=torch.Generator().manual_seed(1))
    for kept in (0.7, 0.3, 0.05):
        assert errors(cloud, kept) == pytest.approx(kept, rel=0.05)


def test_of_a_sheet_the_noise_across_it_is_known():
    """x and y are normal with variance 3/2 each, z is 0: of the noise along z nothing is left to guess."""
    cloud = torch.randn(8192, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.5**0.5, 1.5**0.5, 0])
    for kept in (0.8, 0.3):
        within = 1.5 * kept / (1.5 * kept + 1 - kept)
        assert errors(cloud, kept) == pytest.approx(2 / 3 * within, rel=0.05)


def test_of_two_places_a_little_noise_is_all_known():
    cloud = torch.tensor([[1.0, 1, 1], [-1, -1, -1]]).repeat(50, 1) + torch.linspace(0, 1e-4, 100)[:, None]
    assert errors(cloud, 0.9) < 1e-3
    assert errors(cloud, 0.01) == pytest.approx(0.01, rel=0.35)


def test_a_point_does_not_tell_where_it_lies_itself():
    cloud = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    kept = 0.9999
    assert errors(cloud, kept) == pytest.approx(kept, rel=0.05)
    assert math.isfinite(errors(cloud, 1 - 1e-7))


def test_errors_with_and_without_masks_stand_beside_mean_and_variance():
    whole, masked = MaskedErrors(model=0.8, masked=0.9, known=1.0, least=0.7).scores("", 5)
    assert (whole.value, masked.value) == (0.8, 0.9)
    assert set(whole.baselines.values()) == set(masked.baselines.values()) == {1.0}
