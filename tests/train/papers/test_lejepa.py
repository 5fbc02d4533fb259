"""LeJEPA: the statistic of Epps and Pulley beside its closed form, and the loss beside a slow writing of it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from maskstream.pipelines.masks import MaskBatch, Padded, TargetBlocks
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.train.papers.jepa.lejepa import LeJepaConfig, compute_epps_pulley
from maskstream.train.recipes import chosen_recipe

from ..test_every_recipe import CUTS

TWO = ("data.views=2", "model.views=2")
RNG = np.random.default_rng(7)
N = 300
SAMPLES = {
    "gaussian": RNG.normal(size=N),
    "narrow": 0.1 * RNG.normal(size=N),
    "shifted": 1.0 + RNG.normal(size=N),
    "uniform": RNG.uniform(-math.sqrt(3), math.sqrt(3), size=N),
    "two points": RNG.choice([-1.0, 1.0], size=N),
    "exponential": RNG.exponential(size=N) - 1.0,
    "one point": np.zeros(N),
}


def closed_form(x):
    """The integral over the whole line, by the integrals of Gaussians and cosines."""
    pairs = np.exp(-np.square(x[:, None] - x) / 2).sum() / len(x)
    single = np.exp(-np.square(x) / 4).sum()
    return math.sqrt(2 * math.pi) * pairs - 2 * math.sqrt(math.pi) * single + len(x) * math.sqrt(2 * math.pi / 3)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_statistic_is_that_of_its_closed_form(name):
    x = SAMPLES[name]
    found = compute_epps_pulley(torch.from_numpy(x)[:, None], farthest=9.0, points=200)
    assert found.item() == pytest.approx(closed_form(x), rel=1e-9, abs=1e-9)
    seventeen = compute_epps_pulley(torch.from_numpy(x)[:, None])
    assert seventeen.item() == pytest.approx(closed_form(x), rel=0.1), "what lies beyond 3 is left out"


def test_the_statistic_is_about_one_of_gaussians_and_grows_with_what_is_none():
    many = torch.from_numpy(np.random.default_rng(0).normal(size=(N, 400)))
    assert compute_epps_pulley(many).mean().item() == pytest.approx(math.sqrt(2 * math.pi) * (1 - 3**-0.5), rel=0.1)
    highest = torch.quantile(compute_epps_pulley(many), 0.99)
    for name, x in SAMPLES.items():
        assert (compute_epps_pulley(torch.from_numpy(x)) > highest) == (name != "gaussian"), name


def pictures():
    image = torch.from_numpy(RNG.integers(256, size=(8, 32, 32, 3), dtype=np.uint8))
    return ImageBatch(image=image, mask=None, key=[""] * 8, label=torch.zeros(8, dtype=torch.int64))


def clips():
    video = torch.from_numpy(RNG.integers(256, size=(8, 4, 32, 32, 3), dtype=np.uint8))
    times = torch.zeros(8, 4, dtype=torch.float64)
    return VideoBatch(video=video, mask=None, flow=None, pts_s=times, key=[""] * 8, label=torch.zeros(8).long())


@pytest.mark.parametrize(("family", "media"), [("lejepa", pictures), ("videolejepa", clips)])
def test_the_loss_is_the_distance_of_views_and_sigreg(family, media):
    model, batch = chosen_recipe(f"{family}-tiny", (*CUTS[family], *TWO)).build().double(), media()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        found = model.loss(batch)
        torch.manual_seed(3)
        directions = torch.randn(8, 8)
    z = model.embeddings(batch).detach().numpy()
    assert z.shape == (4, 2, 8)
    near = np.mean([[(z[b, v] - z[b].mean(axis=0)) ** 2 for v in range(2)] for b in range(4)])
    units = directions.double().numpy() / np.linalg.norm(directions.numpy(), axis=0)
    t = np.linspace(-3, 3, 33)
    apart = [
        np.abs(np.exp(1j * np.outer(t, z[:, v] @ units[:, s])).mean(axis=1) - np.exp(-(t**2) / 2)) ** 2
        for v in range(2)
        for s in range(8)
    ]
    sigreg = 4 * np.mean([np.trapezoid(one * np.exp(-(t**2) / 2), t) for one in apart])
    share = model.config.share
    assert found.parts["views"].mean().item() == pytest.approx(near)
    assert found.parts["sigreg"].mean().item() == pytest.approx(sigreg, rel=1e-6)
    assert found.loss().item() == pytest.approx((1 - share) * near + share * sigreg, rel=1e-6)


@pytest.mark.parametrize(("family", "media"), [("lejepa", pictures), ("videolejepa", clips)])
def test_a_view_with_a_mask_is_its_visible_tokens(family, media):
    model, batch = chosen_recipe(f"{family}-tiny", (*CUTS[family], *TWO)).build().double().eval(), media()
    (grid,) = model.grids.values()
    order = torch.from_numpy(RNG.permuted(np.tile(np.arange(grid.size), (8, 1)), axis=1))
    visible, target = order[:, :5].sort().values, order[:, 5:].sort().values
    hidden = torch.ones(8, grid.size, dtype=torch.bool).scatter(1, visible, value=False)
    mask = MaskBatch(grid=grid, masked=hidden, visible=visible, target=target, weight=torch.ones(target.shape))
    with torch.no_grad():
        inputs = model.token_inputs(batch).double()
        rows = [model.encoder(one[None, at], at[None]).mean(dim=1) for one, at in zip(inputs, visible, strict=True)]
        masked = replace(batch, mask=mask)
        torch.testing.assert_close(model.embeddings(masked), model.projector(torch.cat(rows)).reshape(4, 2, 8))
        torch.testing.assert_close(model.features(masked), model.features(batch), msg="a probe reads all tokens")


def test_what_does_not_fit_is_refused():
    recipe = chosen_recipe("lejepa-tiny", (*CUTS["lejepa"], *TWO))
    with pytest.raises(ValueError, match=r"model.views=2 must equal data.views, got data.views=1"):
        recipe.model.check(replace(recipe.data, views=1))
    with pytest.raises(ValueError, match="use a mask with an exact count"):
        recipe.model.check(replace(recipe.data, mask=Padded(mask=TargetBlocks())))
    with pytest.raises(ValueError, match="share must be a number above 0 and below 1, got 1"):
        LeJepaConfig(share=1)
    with pytest.raises(ValueError, match="views must be an integer of at least 2, got 1"):
        LeJepaConfig(views=1)
