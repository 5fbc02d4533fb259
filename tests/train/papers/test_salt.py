"""SALT: its loss beside a plain writing of it, with targets of shards or of the step; its teacher in runs."""

from contextlib import closing
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from maskstream.preprocess.executors.local import LocalExecutor
from maskstream.preprocess.job.ledger import run_tasks
from maskstream.shards import ResumeError
from maskstream.shards.progress import Progress
from maskstream.train import Trainer, load_model
from maskstream.train.core.weights import compute_weights_sum, save_model
from maskstream.train.nn.masked_autoencoder import ImageAutoencoderConfig, VideoAutoencoderConfig
from maskstream.train.recipes import chosen_recipe
from maskstream.train.write_targets import TargetsJob, write_targets

from ..test_every_recipe import CUTS

SIZES = tuple(cut for cut in CUTS["salt"] if "teacher" not in cut and "autoencoder" not in cut)
LOADING = {"device": "cpu", "threads": 1, "seed": 4}


def recipe_of(teacher, *more):
    return chosen_recipe("salt-tiny", (*SIZES, f"model.teacher={teacher}", *more))


def teacher_in(folder, seed=0, name="teacher.safetensors", **sizes):
    """The file of a teacher with two blocks of 24 channels, as the student's tokens need it."""
    grids = chosen_recipe("salt-tiny", (*SIZES, "model.teacher=null")).data.grids
    config = VideoAutoencoderConfig(
        width=24, depth=2, heads=2, decoder_width=24, decoder_depth=1, decoder_heads=2, positions="grid", **sizes
    )
    save_model(config.build(grids, seed=seed), folder / name)
    return folder / name


def targets_in(folder, weights, split, cycle=2):
    job = TargetsJob(weights, split, folder, recipe=recipe_of(weights), cycle=cycle)
    with job.writing():
        run_tasks(LocalExecutor(0), write_targets, job.tasks, job, Progress(), phase="targets", unit="samples")
    return folder


def loss_of(model, batch):
    model.zero_grad()
    loss = model(batch).loss()
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("class_token", [False, True])
def test_the_loss_is_that_of_a_plain_writing(split, tmp_path, class_token):
    weights = teacher_in(tmp_path, class_token=class_token)
    recipe = recipe_of(weights)
    model = recipe.build(seed=1)
    with closing(recipe.loader(split, **LOADING)) as loader:
        batch = next(iter(loader))
    with torch.no_grad():
        known = F.layer_norm(load_model(weights).token_features(batch), (24,))
        made = model.predict(*model.tokens.of(batch))
    assert made.shape[-1] == 24
    rows = []
    for row in range(len(batch)):
        real = batch.mask.target_valid[row]
        wanted = known[row, batch.mask.target[row, real]]
        rows.append((made[row, real] - wanted).abs().mean())
    assert model.loss(batch).loss().item() == pytest.approx(float(torch.stack(rows).mean()), rel=1e-5)


def test_targets_of_shards_give_the_loss_and_the_gradients_of_those_of_the_step(split, tmp_path):
    weights = teacher_in(tmp_path)
    folder = targets_in(tmp_path / "targets", weights, split)
    computed, stored = recipe_of(weights, "data.cycle=2"), recipe_of(weights, f"data.targets={folder}")
    model = computed.build(seed=1)
    seen = []
    with closing(computed.loader(split, **LOADING)) as one, closing(stored.loader(split, **LOADING)) as other:
        for _ in range(3):  # epochs
            for first, second in zip(one, other, strict=True):
                assert "targets" not in first.fields
                assert torch.equal(first.video, second.video)
                (a, grads), (b, others) = loss_of(model, first), loss_of(model, second)
                assert a == pytest.approx(b, rel=1e-6)
                assert all(torch.allclose(grads[name], others[name], atol=1e-6) for name in grads)
                seen.append(a)
    assert len(set(seen)) == len(seen) > 3
    assert not any(name.startswith("teacher") for name in grads)
    broken = next(model.teacher.parameters())
    broken.data.fill_(float("nan"))  # nothing of the teacher is computed
    assert loss_of(model, second)[0] == pytest.approx(b)


def test_targets_of_another_teacher_or_of_none_are_refused(split, tmp_path):
    one, other = teacher_in(tmp_path), teacher_in(tmp_path, seed=1, name="other.safetensors")
    folder = targets_in(tmp_path / "targets", one, split)
    sums = [compute_weights_sum(path)[0] for path in (one, other)]
    with pytest.raises(ValueError, match=f"were created by a model with the checksum {sums[0]}, but .* has {sums[1]}"):
        recipe_of(other, f"data.targets={folder}")
    with pytest.raises(ValueError, match=r"has none; specify the model that created them"):
        recipe_of("null", f"data.targets={folder}")
    with pytest.raises(ValueError, match=r"VideoAutoencoderConfig does not read targets, got data.targets="):
        chosen_recipe("videomae-tiny", [f"data.targets={folder}"])
    with pytest.raises(ValueError, match=r"for different clips and crops \(data.clip.stride"):
        recipe_of(one, f"data.targets={folder}", "clip.stride=3").loader(split, **LOADING)


def test_a_teacher_that_is_missing_or_of_another_kind_is_told(split, tmp_path):
    with closing(recipe_of("null").loader(split, **LOADING)) as loader:
        batch = next(iter(loader))
    with pytest.raises(ValueError, match=r"the teacher is not set; train one .maskstream train videomae-tiny."):
        chosen_recipe("salt-tiny", SIZES).build().loss(batch)
    with pytest.raises(ValueError, match=r"gone.safetensors is missing; train one"):
        recipe_of(tmp_path / "gone.safetensors").build().loss(batch)
    image = chosen_recipe("mae-tiny", CUTS["mae"])
    assert isinstance(image.model, ImageAutoencoderConfig)
    save_model(image.build(), tmp_path / "image.safetensors")
    with pytest.raises(ValueError, match="is a ImageAutoencoderConfig, but SALT needs a video masked autoencoder"):
        recipe_of(tmp_path / "image.safetensors")


@pytest.mark.slow
def test_a_run_keeps_its_teacher_and_refuses_another(split, tmp_path):
    weights = teacher_in(tmp_path)
    whole = load_model(weights).encoder.state_dict()

    def run(recipe, out, until):
        loader = recipe.loader(split, steps=4, **LOADING)
        return Trainer(recipe, loader, out, steps=4, save_every=1, progress=False).run(until=until)

    recipe = recipe_of(weights)
    assert recipe.model.weights == compute_weights_sum(weights)[0]
    run(recipe, tmp_path / "once", 4)
    run(recipe, tmp_path / "twice", 2)
    other = teacher_in(tmp_path, seed=1)  # in the place of the first
    with pytest.raises(ResumeError, match=r"model.weights: saved"):
        run(recipe_of(other), tmp_path / "twice", 4)
    weights.unlink()
    run(recipe, tmp_path / "twice", 4)  # the checkpoint has the teacher
    one, two = (load_model(tmp_path / name / "model.safetensors") for name in ("once", "twice"))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert all(torch.equal(one.teacher.state_dict()[name], value) for name, value in whole.items())
    start = recipe_of("null").build()
    assert not torch.equal(one.encoder.embed.weight, start.encoder.embed.weight)
    with closing(recipe.loader(split, **LOADING)) as loader:
        batch = next(iter(loader))
    assert torch.isfinite(one.loss(batch).loss())
    assert one.features(replace(batch, mask=None)).shape == (len(batch), recipe.model.width)
