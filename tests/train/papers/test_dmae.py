"""DMAE: the features of the teacher, what the loss is made of, and teachers that do not fit."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from maskstream.pipelines.masks import Random
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import compute_image_grid
from maskstream.train import load_model, save_model
from maskstream.train.models import DistilledAutoencoderConfig
from maskstream.train.nn.masked_autoencoder import ImageAutoencoderConfig
from maskstream.train.papers.dmae.model import compute_block_features

GRIDS = {"image": compute_image_grid(32, 8)}
SIZES = {"depth": 3, "heads": 2, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
TEACHER = {"teacher_width": 32, "teacher_block": 1, "block": 0, "share": 0.5}


@pytest.fixture
def batch():
    image = torch.randint(0, 256, (3, 32, 32, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    mask = Random(ratio=0.75).draw(GRIDS["image"], [np.random.default_rng(i) for i in range(3)])
    return ImageBatch(image=image, mask=mask, label=torch.full((3,), -1), key=list("abc"))


@pytest.fixture
def teacher(tmp_path):
    path = tmp_path / "teacher.safetensors"
    save_model(ImageAutoencoderConfig(width=32, **SIZES).build(GRIDS, seed=4), path)
    return path


def student_of(path, **changes):
    return DistilledAutoencoderConfig(width=16, teacher=str(path), **{**SIZES, **TEACHER, **changes}).build(
        GRIDS, seed=5
    )


def test_the_loss_is_reconstruction_and_the_distance_of_unit_features(teacher, batch):
    student = student_of(teacher)
    losses = student(batch)
    ours = F.normalize(student.match(compute_block_features(student, batch.image, batch.mask.visible, 0)), dim=2)
    theirs = F.normalize(compute_block_features(load_model(teacher), batch.image, batch.mask.visible, 1), dim=2)
    assert losses.means()["features"].item() == pytest.approx((ours - theirs).abs().mean().item(), rel=1e-5)
    alone = student.eval()(batch)
    assert alone.means().keys() == {"reconstruction"}
    assert losses.means()["reconstruction"].item() == pytest.approx(alone.loss().item(), rel=1e-6)


def test_the_teacher_stays_as_it_is_and_belongs_to_no_checkpoint(teacher, batch, tmp_path):
    student = student_of(teacher)
    student(batch).loss().backward()
    assert all(p.grad is None for p in student.teacher(batch.image.device).parameters())
    assert sum(1 for name, _ in student.named_parameters() if "match" in name) == 2
    assert not any("teacher" in name for name in student.state_dict())
    save_model(student, tmp_path / "student.safetensors")
    teacher.unlink()
    assert torch.isfinite(load_model(tmp_path / "student.safetensors")(batch).loss())


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"teacher_width": 64}, "set these"), ({"teacher_block": 3}, "set these"), ({"class_token": True}, "set these")],
)
def test_a_teacher_of_other_sizes_is_refused(teacher, batch, changes, message):
    with pytest.raises(ValueError, match=message):
        student_of(teacher, **changes)(batch)


def test_a_missing_teacher_says_how_to_get_one(tmp_path, batch):
    with pytest.raises(ValueError, match="train mae-tiny"):
        student_of(tmp_path / "none.safetensors")(batch)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of torch's own tracing
def test_a_step_with_a_teacher_is_one_graph(teacher, batch):
    student = student_of(teacher)
    expected = student(batch).loss().item()
    again = student_of(teacher)
    again.compile(fullgraph=True, backend="eager")
    loss = again(batch).loss()
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert again.match.weight.grad.abs().sum() > 0
