"""The masked autoencoder of groups of points, and the reports of both point models."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from maskstream.pipelines import masks
from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.modalities.points.batch import PointsBatch
from maskstream.pipelines.modalities.points.read import PointSelection
from maskstream.pipelines.modalities.points.tokens import GroupTokens, VoxelTokens
from maskstream.preprocess.encode.points.encoder import PointEncoder
from maskstream.preprocess.source import Source
from maskstream.shards.format.sample import Sample
from maskstream.train import train
from maskstream.train.core.metrics import read_metrics
from maskstream.train.core.optimiser import ScheduleConfig
from maskstream.train.core.weights import load_model
from maskstream.train.papers.fastdit3d.model import VoxelDiffusionConfig
from maskstream.train.papers.pointmae.evaluate import measure_losses as held_out
from maskstream.train.papers.pointmae.model import PointAutoencoderConfig
from maskstream.train.recipes import named_recipe

from ...pages.pages import write_report
from ...splits import write_samples

GRIDS = {"points": GroupTokens(groups=8, size=6).grid}
CONFIG = PointAutoencoderConfig(width=24, depth=2, heads=2, decoder_depth=1)


def inputs(batch=2, n=60, groups=8, hidden=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(batch, n, 3, generator=generator)
    order = torch.stack([torch.randperm(groups, generator=generator) for _ in range(batch)])
    return points, order[:, hidden:].sort().values, order[:, :hidden].sort().values, torch.ones(batch, hidden)


def batch_of(points, visible, target, weight):
    mask = MaskBatch(grid=GRIDS["points"], masked=target, visible=visible, target=target, weight=weight)
    label = torch.zeros(len(points))
    return PointsBatch(points=points, noise=None, time=None, mask=mask, label=label, key=["a"] * len(points))


def test_hidden_points_reach_the_loss_but_not_the_prediction():
    model = CONFIG.build(GRIDS).eval()
    points, visible, target, weight = inputs()
    centres, groups = model.cut(points)
    groups.requires_grad_(True)
    model._predict(centres, groups, visible, target).square().sum().backward()
    reached = [row.flatten(1).any(dim=1).nonzero().flatten().tolist() for row in groups.grad]
    assert reached == visible.tolist()
    assert model(batch_of(points, visible, target, weight)).loss().item() > 0


def test_the_order_of_points_in_a_group_does_not_matter():
    model = CONFIG.build(GRIDS).eval()
    points, visible, target, _ = inputs()
    centres, groups = model.cut(points)
    turned = groups[:, :, [3, 1, 5, 0, 2, 4]]
    a, b = (model._predict(centres, g, visible, target) for g in (groups, turned))
    torch.testing.assert_close(a, b)


def test_a_target_of_weight_0_does_not_count():
    model = CONFIG.build(GRIDS).eval()
    points, visible, target, weight = inputs()
    weight[0] = 0
    alone = model(batch_of(points[1:], visible[1:], target[1:], weight[1:])).loss()
    torch.testing.assert_close(model(batch_of(points, visible, target, weight)).loss(), alone)


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiple of heads"):
        PointAutoencoderConfig(width=10, heads=3)


def shapes(n, seed):
    """Squares and segments of random sizes: float64 (n, 200, 3), and which they are."""
    rng = np.random.default_rng(seed)
    flat = rng.uniform(-1, 1, (n, 200, 3)) * rng.uniform(0.5, 1.5, (n, 1, 3))
    label = np.arange(n) % 2
    flat[label == 0, :, 2] = 0
    flat[label == 1, :, 1:] = 0
    return flat, label


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    for split, n in (("train", 32), ("val", 8)):
        samples = []
        for i, (cloud, label) in enumerate(zip(*shapes(n, len(split)), strict=True)):
            np.save(root / "a.npy", cloud)
            made = PointEncoder().encode(Source(id=f"{i}", path=root / "a.npy"))
            samples.append(Sample(key=f"s{i}", members=made.members, source=f"{i}", label=int(label)))
        (root / split).mkdir()
        write_samples(root / split, samples, "points", split=split, profile="points", label_names=("square", "line"))
    return root


def tiny(name):
    recipe = named_recipe(name)
    data = replace(recipe.data, select=PointSelection(points=100))
    if name == "pointmae-tiny":
        data = replace(data, tokens=GroupTokens(groups=16, size=12))
        model = PointAutoencoderConfig(width=48, depth=2, heads=3, decoder_depth=1)
    else:
        mask = masks.VoxelAware(foreground=0.6, background=0.9, total=0.75)
        small = {"width": 48, "depth": 2, "heads": 2, "decoder_width": 24, "decoder_depth": 2, "decoder_heads": 2}
        model = VoxelDiffusionConfig(categories=2, window=2, experts=2, **small)
        data = replace(data, tokens=VoxelTokens(resolution=16, patch=4), mask=mask, noise=model.noise())
    schedule = ScheduleConfig(base_lr=6.4e-2, warmup=0.1, steps=40)
    return replace(recipe, data=data, model=model, batch_size=8, schedule=schedule)


@pytest.mark.parametrize("name", ["fastdit3d-tiny", "pointmae-tiny"])
def test_a_run_learns_and_its_report_says_what_it_is_worth(splits, tmp_path, name):
    recipe = tiny(name)
    whole = train(recipe, splits / "train", tmp_path / "whole", device="cpu", progress=False)
    losses = [step.loss for step in read_metrics(tmp_path / "whole" / "metrics.jsonl")]
    assert whole.finished
    assert np.mean(losses[-10:]) < np.mean(losses[:5])
    page = write_report(tmp_path / "whole", splits / "val", recipe=recipe, clips=3).read_text()
    assert page.count("original") >= 6
    if name == "pointmae-tiny":
        model = load_model(tmp_path / "whole" / "model.safetensors")
        losses = held_out(model, list(recipe.loader(splits / "val", device="cpu", steps=1)))
        assert losses.value < min(losses.baselines.values())
        assert re.search(r"0\.\d+, \d+% below (a copy of the nearest group|all points at the centre)", page)
    else:
        assert "nearest to a real cloud of their category of 8 generated clouds" in page
        assert "squared error of the noise with the recipe&#39;s masks of 32 clouds" in page
        assert page.count("<b>made</b>") == page.count("<b>real</b>") == 2
        assert "GFLOP" in page


def test_labels_that_the_model_does_not_know_are_refused(splits):
    recipe = tiny("fastdit3d-tiny")
    model = replace(recipe.model, categories=1)
    with pytest.raises(ValueError, match="2 categories, but the model has 1"):
        replace(recipe, model=model).loader(splits / "train")


def test_a_recipe_needs_noise_and_masks():
    recipe = named_recipe("fastdit3d-tiny")
    batch = PointsBatch(points=torch.zeros(1, 4, 3), noise=None, time=None, mask=None, label=torch.zeros(1), key=["a"])
    with pytest.raises(ValueError, match="needs both"):
        recipe.build()(batch)
    with pytest.raises(ValueError, match="has no masks"):
        named_recipe("pointmae-tiny").build()(batch)
