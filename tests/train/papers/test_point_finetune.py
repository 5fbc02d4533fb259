"""What the encoder of Point-MAE is used for: features, probes, classification and part segmentation."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from maskstream.pipelines.modalities.points.batch import PointsBatch
from maskstream.pipelines.modalities.points.tokens import GroupTokens
from maskstream.preprocess import make_shards
from maskstream.shards.format.manifest import Manifest
from maskstream.train import load_model, train
from maskstream.train.evaluate.classifier import EncoderClassifier, EncoderClassifierConfig, select_body_weights
from maskstream.train.evaluate.probe import probe
from maskstream.train.evaluate_run import evaluate_run
from maskstream.train.finetune_run import finetune, tune
from maskstream.train.papers.pointmae.finetune import PointSegmenterConfig, compute_mean_iou, count_parts
from maskstream.train.papers.pointmae.model import PointAutoencoderConfig
from maskstream.train.recipes import chosen_recipe

GRIDS = {"points": GroupTokens(groups=8, size=6).grid}
CONFIG = PointAutoencoderConfig(width=24, depth=3, heads=2, decoder_depth=1)
SMALL = ("model.width=24", "model.depth=2", "model.heads=2", "model.decoder_depth=1", "batch_size=4")
CLOUDS = ("data.tokens.groups=8", "data.tokens.size=8", "data.select.points=96")
CPU = torch.device("cpu")


def batch(rows=3, n=60, seed=0, parts=(0, 1)):
    """Clouds whose upper half has the last of `parts`, the lower one the first."""
    points = torch.randn(rows, n, 3, generator=torch.Generator().manual_seed(seed))
    part = torch.where(points[..., 2:] > 0, parts[-1], parts[0]).float()
    label = torch.arange(rows) % 2
    key = [str(row) for row in range(rows)]
    return PointsBatch(points=torch.cat((points, part), 2), noise=None, time=None, mask=None, label=label, key=key)


def test_features_are_those_of_all_groups_and_of_no_one_elses_points():
    model, clouds = CONFIG.build(GRIDS).eval(), batch()
    centres, groups = model.cut(clouds.points)
    whole = model.encoder(model.embed(groups), place=model.place(centres))
    torch.testing.assert_close(model.token_features(clouds), whole)
    torch.testing.assert_close(model.features(clouds), torch.cat((whole.amax(1), whole.mean(1)), 1))
    assert model.features(clouds).shape == (3, model.feature_width)
    alone = model.features(replace(clouds, points=clouds.points[:1]))
    torch.testing.assert_close(alone, model.features(clouds)[:1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "config", [EncoderClassifierConfig(of=CONFIG, classes=2), PointSegmenterConfig(of=CONFIG, parts=((0, 1), (1,)))]
)
def test_only_the_encoder_is_kept_and_its_weights_are_the_runs(config):
    whole, model = CONFIG.build(GRIDS, seed=1), config.build(GRIDS, seed=2)
    assert {name.partition(".")[0] for name, _ in model.body.named_parameters()} == {"embed", "place", "encoder"}
    weights = select_body_weights(whole)
    model.load_state_dict(weights, strict=False)
    assert {*weights} == {name for name in model.state_dict() if name.startswith("body.")}
    torch.testing.assert_close(model.body.features(batch()), whole.features(batch()))
    model(batch(parts=(0, 1))).loss().backward()
    assert all(own.grad is not None and own.grad.any() for name, own in model.named_parameters() if "head" not in name)


def test_parts_are_numbers_of_the_file_and_those_of_the_category_alone_are_predicted():
    model = PointSegmenterConfig(of=CONFIG, parts=((3, 7), (7, 20))).build(GRIDS).eval()
    assert model.config.numbers == [3, 7, 20]
    clouds = batch(parts=(7, 20))
    assert set(model.number_parts(clouds).unique().tolist()) == {1, 2}
    assert set(model.number_parts(batch(parts=(4, 99))).unique().tolist()) == {-1}
    assert model.loss(batch(parts=(4, 99))).loss() == 0
    made = model.reconstructed(clouds).points[..., 3]
    assert set(made[0].unique().tolist()) <= {3, 7}
    assert set(made[1].unique().tolist()) <= {7, 20}


def test_a_point_at_a_centre_has_the_features_of_its_group():
    model = PointSegmenterConfig(of=CONFIG, parts=((0, 1),)).build(GRIDS).eval()
    read = []
    model.propagate.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    clouds = batch(rows=1)
    model.scores(clouds)
    centres, groups = model.body.cut(clouds.points)
    wanted = torch.cat(model.body.compute_block_features(centres, groups, (1, 2, 3)), 2)
    at = torch.cdist(clouds.points[0, :, :3], centres[0]).argmin(dim=0)
    torch.testing.assert_close(read[0][0, at, :-3], wanted[0], atol=1e-4, rtol=1e-3)


def test_mean_iou_by_hand():
    predicted, true = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 1, 1, 1, 0])
    assert compute_mean_iou(predicted, true, [0, 1]) == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert compute_mean_iou(predicted, true, [0, 1, 5]) == pytest.approx((1 / 3 + 2 / 4 + 1) / 3)
    assert compute_mean_iou(predicted, torch.zeros(5, dtype=torch.int64), [2]) == 1


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """Balls and boxes, whose upper half is another part: 0 and 1 of balls, 4 and 5 of boxes."""
    root = tmp_path_factory.mktemp("clouds")
    for split, count in (("train", 10), ("test", 5)):
        for label, name in enumerate(("ball", "box")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                xyz = np.random.default_rng((label, number, count)).normal(size=(200, 3))
                xyz /= np.linalg.norm(xyz, axis=1, keepdims=True) if label == 0 else np.abs(xyz).max(axis=1)[:, None]
                rows = np.concatenate((xyz, 4 * label + (xyz[:, 2:] > 0)), axis=1)
                np.savetxt(root / split / name / f"{number}.xyz", rows, header="X Y Z Part", comments="//")
    make_shards("points-folder", root, root / "out", workers=0)
    return root / "out" / "train", root / "out" / "test"


def test_the_parts_of_categories_are_counted(splits):
    balls, boxes, none = count_parts(Manifest.load(splits[0]), "part")
    assert ({*balls}, {*boxes}, none) == ({0, 1}, {4, 5}, {})
    assert balls.total() == boxes.total() == 2000
    with pytest.raises(ValueError, match="no label column 'class'; besides x, y and z it has part"):
        count_parts(Manifest.load(splits[0]), "class")


@pytest.mark.slow
def test_runs_are_probed_and_tuned_by_classes_and_by_parts(splits, tmp_path):
    run = tmp_path / "run"
    recipe = chosen_recipe("pointmae-tiny", (*SMALL, *CLOUDS))
    train(recipe, splits[0], run, steps=2, device="cpu", threads=1, progress=False)
    found = probe([run], *splits, probes=("linear", "attentive"), seeds=1, device=CPU)
    assert {one.encoder for one in found.reached} == {"pre-trained", "untrained", "inputs"}
    options = {"device": CPU, "progress": False, "save_every": 500}
    fast = ("schedule.base_lr=0.3",)
    tuned = finetune(run, *splits, tmp_path / "classes", set=fast, steps=40, **options)
    assert (tuned.metric, tuned.majority, tuned.test) == ("accuracy", 0.5, 10)
    assert tuned.value > 0.6
    assert isinstance(load_model(tmp_path / "classes" / "model.safetensors"), EncoderClassifier)
    parts = finetune(run, *splits, tmp_path / "parts", points="part", set=fast, steps=40, **options)
    names = [one["name"] for one in json.loads(json.dumps(parts.to_dict()))["scores"]]
    assert names == ["instance mIoU", "class mIoU", "accuracy of points"]
    assert parts.majority < 0.3
    assert parts.value > 0.6
    (again,) = evaluate_run(tmp_path / "parts", splits[1]).scores[:1]
    assert again.value == pytest.approx(parts.value)
    with pytest.raises(ValueError, match="no label column 'class'; besides x, y and z it has part"):
        tune(run, splits[0], points="class")
