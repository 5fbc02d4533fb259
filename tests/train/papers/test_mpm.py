"""The model of poses: hidden joints are not seen, the loss is the mean distance, and its weights lift poses."""

from dataclasses import replace

import pytest
import torch

from maskstream.pipelines import PoseClip, masks
from maskstream.pipelines.masks import Cues, Draw
from maskstream.pipelines.modalities.pose.data import PoseData
from maskstream.pipelines.stream.rng import START
from maskstream.train.core.weights import load_matching_weights, save_model
from maskstream.train.papers.mpm.model import PoseModelConfig
from maskstream.train.recipes import named_recipe

from ...pipelines.every_modality import write_split

SMALL = PoseModelConfig(width=16, hidden=24, depth=2, heads=2)
DATA = PoseData(clip=PoseClip(frames=9, stride=1), mask=masks.Joints(frames=0.5, joints=5))


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    split = write_split("pose", tmp_path_factory.mktemp("pose"))
    loader = DATA.loader(split, batch_size=4, device="cpu", threads=1)
    first = next(iter(loader))
    loader.close()
    return first


@pytest.fixture(scope="module")
def model():
    return SMALL.build(DATA.grids).eval()


def changed(pose, where, by=1.0):
    return torch.where(where[..., None], pose + by, pose)


def test_what_is_hidden_changes_nothing_and_what_is_visible_does(batch, model):
    hidden_2d, hidden_3d = (m.masked.view(4, 9, 17) for m in (batch.mask_2d, batch.mask_3d))
    with torch.no_grad():
        first = model.completed(batch)
        other = replace(
            batch, pose_2d=changed(batch.pose_2d, hidden_2d), pose_3d=changed(batch.pose_3d, hidden_3d, 7.0)
        )
        for a, b in zip(first, model.completed(other), strict=True):
            torch.testing.assert_close(a, b)
        shown_2d = model.completed(replace(batch, pose_2d=changed(batch.pose_2d, ~hidden_2d)))
        shown_3d = model.completed(replace(batch, pose_3d=changed(batch.pose_3d, ~hidden_3d)))
    same_2d, same_3d = ([torch.equal(a, b) for a, b in zip(first, made, strict=True)] for made in (shown_2d, shown_3d))
    assert same_2d == [False, True, False]
    assert same_3d == [True, False, True]


def test_hidden_frames_are_not_encoded(batch, model):
    lengths = []
    hook = model.encoder.stack.register_forward_hook(lambda _, args, __: lengths.append(args[0].shape[1]))
    model.completed(batch)
    hook.remove()
    assert lengths == [5, 5]


def test_the_loss_is_the_mean_distance_of_all_joints_with_the_tasks_shares(batch, model):
    with torch.no_grad():
        made, losses = model.completed(batch), model.loss(batch)
    true = (batch.pose_2d, batch.pose_3d, batch.pose_3d)
    errors = [((a - b) ** 2).sum(-1).sqrt().mean().item() for a, b in zip(made, true, strict=True)]
    assert [float(mean) for mean in losses.means().values()] == pytest.approx(errors, rel=1e-5)
    assert float(losses.loss()) == pytest.approx(5 * errors[0] + 5 * errors[1] + errors[2], rel=1e-5)


def test_a_row_that_pads_a_batch_does_not_count(batch, model):
    padded = batch.weighted(torch.tensor([1.0, 1.0, 1.0, 0.0]))
    far = replace(padded, pose_3d=padded.pose_3d + torch.tensor([0.0, 0, 0, 99]).view(4, 1, 1, 1))
    with torch.no_grad():
        assert float(model.loss(far).loss()) == pytest.approx(float(model.loss(padded).loss()), rel=1e-5)


def test_a_pre_trained_model_lifts_the_same_when_its_weights_begin_another_run(batch, model, tmp_path):
    save_model(model, tmp_path / "model.safetensors")
    lift = replace(SMALL, task="lift").build(DATA.grids, seed=7).eval()
    whole = replace(batch, mask_2d=None, mask_3d=None)
    with torch.no_grad():
        before = lift.lifted(whole)
        assert load_matching_weights(lift, tmp_path / "model.safetensors") == []
        torch.testing.assert_close(lift.lifted(whole), model.lifted(whole))
        assert not torch.allclose(before, lift.lifted(whole))
        made = lift.reconstructed(whole)
    assert set(lift.loss(whole).parts) == {"lift"}
    torch.testing.assert_close(made.pose_2d, batch.pose_2d)
    assert all(p.grad is not None for p in trained(lift, whole).parameters())


def trained(model, batch):
    model.loss(batch).loss().backward()
    return model


def test_every_weight_has_a_gradient(batch):
    model = SMALL.build(DATA.grids)
    assert [name for name, p in trained(model, batch).named_parameters() if p.grad is None] == []


def test_what_does_not_fit_is_named(batch, model):
    with pytest.raises(ValueError, match="no masks"):
        model.loss(replace(batch, mask_2d=None))
    uneven = batch.mask_2d.masked.clone()
    uneven[0] = False
    with pytest.raises(ValueError, match="5 to 9 frames with a visible joint"):
        model.loss(replace(batch, mask_2d=replace(batch.mask_2d, masked=uneven)))
    with pytest.raises(ValueError, match="needs a mask"):
        SMALL.check(replace(DATA, mask=None))
    with pytest.raises(ValueError, match="takes none"):
        replace(SMALL, task="lift").check(DATA)
    for field, value in (("width", 6), ("task", "rest"), ("shares", (1.0, 0.0, 1.0)), ("depth", 0)):
        with pytest.raises(ValueError, match=field):
            replace(SMALL, **{field: value})


def test_recipes_have_the_papers_numbers():
    recipe = named_recipe("mpm")
    grid = recipe.data.grids["pose"]
    assert grid.shape == (243, 16)
    assert int((~recipe.data.mask.draw(grid, [Draw.of(0, 0, "a", 0, START, Cues())]).masked).sum()) == 98 * 11
    assert recipe.data.mask.scope == "batch"
    assert recipe.schedule.base_lr * recipe.batch_size / 256 == pytest.approx(1e-4)
    assert named_recipe("mpm-lift").data.mask is None
