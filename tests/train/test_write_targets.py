"""Targets in shards: what a loader reads is what the teacher makes of the clips that it shows, or it is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.pipelines import VideoClip, masks
from maskstream.pipelines.augment import RandomResizedCrop, SharedCrop
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.targets import TARGETS, check_targets
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.preprocess.executors.local import LocalExecutor
from maskstream.preprocess.job.ledger import run_tasks
from maskstream.preprocess.versions import append, remove
from maskstream.shards import ResumeError, ShardError, verify
from maskstream.shards.checksummed import add_checksum, read_checksummed
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.progress import Progress
from maskstream.train import load_model
from maskstream.train.core.optimiser import ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.core.weights import save_model
from maskstream.train.nn.masked_autoencoder import VideoAutoencoderConfig
from maskstream.train.nn.quantiser import QuantiserConfig
from maskstream.train.papers.mage.model import GenerativeEncoderConfig
from maskstream.train.papers.vq.model import ImageVQConfig
from maskstream.train.write_targets import TargetsJob, write_targets

from ..pipelines.every_modality import write_split

SHARED = VideoData(
    clip=VideoClip(frames=4, stride=1, size=32),
    mask=masks.Tube(ratio=0.5),
    augment=SharedCrop(crop=RandomResizedCrop(flip=0.5)),
    views=2,
    patch=16,
)
TEACHER = VideoAutoencoderConfig(
    width=24, depth=1, heads=2, decoder_width=24, decoder_depth=1, decoder_heads=2, positions="grid"
)
IN_A_ROW = LocalExecutor(0)
LOADING = {"device": "cpu", "threads": 1, "batch_size": 4}


def recipe_of(data, model=TEACHER):
    return Recipe(
        name="own", batch_size=4, data=data, model=model, schedule=ScheduleConfig(base_lr=1e-3, min_lr=0.0, steps=1)
    )


def taught(folder, data, model=TEACHER, seed=0):
    """The file of a teacher's weights."""
    path = folder / f"teacher-{seed}.safetensors"
    save_model(model.build(data.grids, seed=seed), path)
    return path


def written(weights, split, out, data=SHARED, work=write_targets, **settings):
    """The job of a folder of targets, done."""
    job = TargetsJob(weights, split, out, recipe=recipe_of(data), **settings)
    with job.writing():
        run_tasks(IN_A_ROW, work, job.tasks, job, Progress(), phase="targets", unit="samples")
    return job


def shown(data, split, *, seed=0, epochs=1):
    """The batches of some epochs, by epoch."""
    with closing(data.loader(split, seed=seed, max_bad_fraction=1.0, **LOADING)) as loader:
        return [list(loader) for _ in range(epochs)]


@pytest.fixture(scope="module")
def made(split, tmp_path_factory):
    """A split of videos, a teacher, and its targets of two clips of each sample."""
    folder = tmp_path_factory.mktemp("targets")
    weights = taught(folder, SHARED)
    written(weights, split, folder / "targets", cycle=2)
    return split, weights, folder / "targets"


def test_a_batch_has_what_the_teacher_makes_of_its_clips_in_every_epoch_and_of_every_seed(made):
    split, weights, folder = made
    teacher = load_model(weights)
    seen = {}
    for seed in (0, 3):
        for epoch, batches in enumerate(shown(replace(SHARED, targets=str(folder)), split, seed=seed, epochs=3)):
            for batch in batches:
                with torch.no_grad():
                    wanted = teacher.token_features(batch)
                assert torch.allclose(batch.fields[TARGETS], wanted, atol=1e-5)
                for row, key in enumerate(batch.key):
                    seen.setdefault((key, row % 2, epoch % 2), []).append((batch.video[row], batch.mask.masked[row]))
    several = [rows for rows in seen.values() if len(rows) > 1]
    assert len(several) > 10
    assert all(torch.equal(one, rows[0][0]) for rows in several for one, _ in rows)
    assert not all(torch.equal(one, rows[0][1]) for rows in several for _, one in rows)
    both = [
        (rows, seen[key, view, 1]) for (key, view, epoch), rows in seen.items() if not epoch and (key, view, 1) in seen
    ]
    assert not any(torch.equal(one[0][0], other[0][0]) for one, other in both)
    assert verify(folder).ok


def test_views_that_see_other_crops_have_targets_of_their_own_in_half_the_bytes(made, tmp_path):
    split, weights, folder = made
    own = replace(SHARED, augment=RandomResizedCrop(), colour=None)
    job = written(weights, split, tmp_path / "targets", own, dtype="float16")
    teacher = load_model(weights)
    for batch in shown(replace(own, targets=str(tmp_path / "targets")), split)[0]:
        with torch.no_grad():
            wanted = teacher.token_features(batch)
        assert batch.fields[TARGETS].dtype == torch.float16
        assert torch.allclose(batch.fields[TARGETS].float(), wanted, atol=4e-3)
        assert not torch.equal(batch.video[0], batch.video[1])
    sizes = [Manifest.load(one).components["npy"].size[0] for one in (folder, job.output.location)]
    assert sizes[1] - 128 == (sizes[0] - 128) / 2  # two views of two bytes for two clips of four


@pytest.mark.slow
def test_ids_of_a_tokenizer(tmp_path):
    split, data = write_split("image", tmp_path / "data"), ImageData(size=32, patch=8, augment=RandomResizedCrop())
    vq = ImageVQConfig(quantiser=QuantiserConfig(levels=(4, 4), stem=4, widths=(8, 8), rounds=1))
    weights = taught(tmp_path, data, vq)
    written(weights, split, tmp_path / "ids", data, cycle=3)
    model = load_model(weights)
    for batches in shown(replace(data, targets=str(tmp_path / "ids")), split, epochs=4):
        for batch in batches:
            found = batch.fields[TARGETS]
            assert found.dtype == torch.int32
            assert torch.equal(found.long(), model.quantiser.ids(batch.image).flatten(1))
    assert len(found.unique()) > 2
    masked = replace(data, mask=masks.Random(ratio=0.5), targets=str(tmp_path / "ids"))
    mage = GenerativeEncoderConfig(
        vq=str(weights), quantiser=vq.quantiser, width=24, depth=1, heads=2, decoder_depth=1, decoder_heads=2
    )
    learner = recipe_of(masked, mage).build()
    batch = shown(masked, split)[0][0]
    with torch.no_grad():
        losses = [learner.loss(one).loss() for one in (batch, replace(batch, fields={}))]
        assert losses[0] == losses[1]
        assert learner.loss(replace(batch, fields={TARGETS: 0 * batch.fields[TARGETS]})).loss() != losses[0]
    with pytest.raises(ValueError, match=r"created by a model with the checksum .* model.vq"):
        recipe_of(masked, replace(mage, vq=str(taught(tmp_path, data, vq, seed=1))))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"clip": VideoClip(frames=4, stride=2, size=32)},
            r"for different clips and crops \(data.clip.stride: saved 1, here 2",
        ),
        ({"augment": SharedCrop()}, r"data.augment.crop"),
        ({"augment": RandomResizedCrop(flip=0.5)}, r"data.views: saved 1, here 2"),
        ({"cycle": 3}, r"have 2 clips per sample, but cycle=3; leave cycle out"),
        ({"fields": ("targets",)}, r"is reserved for targets="),
    ],
)
def test_targets_of_another_geometry_are_refused_by_name(made, tmp_path, changed, said):
    split, _, folder = made
    data = replace(SHARED, targets=str(folder), **changed)
    with pytest.raises(ValueError, match=said):
        data.loader(split, **LOADING)


def test_tars_of_another_teacher_are_never_read(made, tmp_path):
    split, _, folder = made
    shutil.copytree(folder, tmp_path / "mixed")
    written(taught(tmp_path, SHARED, seed=1), split, tmp_path / "other", cycle=2)
    for path in (tmp_path / "other").glob("targets-000001.*"):  # the tar and its checksums of blocks
        shutil.copy(path, tmp_path / "mixed")
    wanted = {key for batch in shown(SHARED, split)[0] for key in batch.key}
    found = {key for batch in shown(replace(SHARED, targets=str(tmp_path / "mixed")), split)[0] for key in batch.key}
    manifest = Manifest.load(split)
    assert found < wanted
    assert found.isdisjoint(manifest.keys(np.flatnonzero(manifest.shard == 1)))
    assert not verify(tmp_path / "mixed").ok


FORGED = {
    "dtype": ["O", "zz", 5, ">f4", "<i4", None],
    "cycle": [0, -1, "2", True, 1],
    "shape": [[], [-1, 8, 24], 3, [1, 24, 8], [10**9, 10**9, 10**9], ["a", "b"], None],
    "geometry": ["x", None],
    "fingerprint": [5, None],
    "version": ["1", None],
    "weights": [[], None],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in FORGED.items() for value in values])
def test_a_forged_description_is_refused_by_name(made, tmp_path, name, value):
    split, _, folder = made
    shutil.copytree(folder, tmp_path / "targets", ignore=shutil.ignore_patterns("versions"))
    path = tmp_path / "targets" / "dataset.json"
    info = read_checksummed(path.read_bytes())
    if value is None:
        del info["settings"][TARGETS][name]
    else:
        info["settings"][TARGETS][name] = value
    path.write_bytes(add_checksum(info))
    with pytest.raises(ValueError, match=rf"targets='{path.parent}'.*\b(dataset.json|clips)\b"):
        shown(replace(SHARED, targets=str(path.parent)), split)
    with pytest.raises(ValueError, match=f"targets='{path.parent}'"):
        check_targets(str(path.parent), "other", "model.teacher")


@pytest.mark.parametrize("settings", [None, [1], {}, {TARGETS: [1]}, {TARGETS: None}])
def test_a_description_without_settings_of_targets_is_refused_by_name(made, tmp_path, settings):
    split, _, folder = made
    shutil.copytree(folder, tmp_path / "targets", ignore=shutil.ignore_patterns("versions"))
    path = tmp_path / "targets" / "dataset.json"
    path.write_bytes(add_checksum(read_checksummed(path.read_bytes()) | {"settings": settings}))
    with pytest.raises((ValueError, ShardError), match=str(path.parent)):
        shown(replace(SHARED, targets=str(path.parent)), split)


def test_targets_of_another_split_or_version_or_of_none_are_refused(made, tmp_path):
    split, _, folder = made
    data = replace(SHARED, targets=str(folder))
    other = Path(shutil.copytree(split, tmp_path / "other"))
    with pytest.raises(ValueError, match="contains video, not targets; create them with `maskstream targets"):
        replace(SHARED, targets=str(other)).loader(split, **LOADING)
    with pytest.raises(ValueError, match="backend='dali' decodes differently"):
        replace(data, backend="dali")
    remove(other, [Manifest.load(other).key(0)])
    data.loader(other, **LOADING).close()  # the same samples without one are no other ones
    with pytest.raises(ValueError, match="cycle must be an integer of at least 1 or None, got 0"):
        replace(data, cycle=0)


def test_a_position_is_not_resumed_with_other_targets(made, tmp_path):
    split, _, folder = made
    other = tmp_path / "other"
    written(taught(tmp_path, SHARED, seed=1), split, other, cycle=2)
    first = replace(SHARED, targets=str(folder)).loader(split, **LOADING)
    next(iter(first))
    state = first.state_dict()
    first.close()
    again = replace(SHARED, targets=str(other)).loader(split, **LOADING)
    with pytest.raises(ResumeError, match=r"targets.weights"):
        again.load_state_dict(state)
    again.close()


def test_a_stopped_job_makes_the_rest_and_other_weights_are_refused(made, tmp_path):
    split, weights, whole = made
    done = []

    def stopped(task, report):
        if task.shard == 1:
            raise KeyboardInterrupt
        return write_targets(task, report)

    def counted(task, report):
        done.append(task.shard)
        return write_targets(task, report)

    with pytest.raises(KeyboardInterrupt):
        written(weights, split, tmp_path / "t", work=stopped, cycle=2)
    names = {path.name for path in (tmp_path / "t").iterdir()}
    assert "targets-000000.tar" in names
    assert not names & {"targets-000001.tar", "dataset.json"}
    with pytest.raises(ResumeError, match=r"different settings.*weights"):
        written(taught(tmp_path, SHARED, seed=1), split, tmp_path / "t", cycle=2)
    with pytest.raises(ResumeError, match=r"different settings.*cycle"):
        written(weights, split, tmp_path / "t", cycle=1)
    written(weights, split, tmp_path / "t", work=counted, cycle=2)
    assert done == [1, 2]
    for shard in whole.glob("*.tar"):
        assert (tmp_path / "t" / shard.name).read_bytes() == shard.read_bytes()
    written(weights, split, tmp_path / "t", work=counted, cycle=2)
    assert done == [1, 2]


@pytest.mark.slow
def test_only_the_shards_of_samples_that_came_later_are_made(made, tmp_path):
    _, weights, _ = made
    split = write_split("video", tmp_path / "data")
    written(weights, split, tmp_path / "t", cycle=2)
    more = write_split("video", tmp_path / "more", lambda raw: renamed(raw))
    append(split, more)
    data, done = replace(SHARED, targets=str(tmp_path / "t")), []
    with pytest.raises(ValueError, match=r"were made for version 1 of their split .*open in version 2"):
        data.loader(split, **LOADING)

    def counted(task, report):
        done.append(task.shard)
        return write_targets(task, report)

    written(weights, split, tmp_path / "t", work=counted, cycle=2)
    assert done == [3, 4, 5]
    data.loader(split, **LOADING).close()


def renamed(raw):
    from ..pipelines.small_media import video_samples

    return [replace(one, key=f"more-{one.key}", source=f"more-{one.source}") for one in video_samples(raw)]


def test_a_sample_whose_targets_are_damaged_is_replaced(made, tmp_path, caplog):
    split, weights, _ = made
    written(weights, split, tmp_path / "t", cycle=2)
    path = tmp_path / "t" / "targets-000001.tar"
    data = bytearray(path.read_bytes())
    data[1500] ^= 1
    path.write_bytes(data)
    (batches,) = shown(replace(SHARED, targets=str(tmp_path / "t")), split)
    assert "clip5" not in {key for batch in batches for key in batch.key}
    assert "targets" in caplog.text


@pytest.mark.slow
def test_a_killed_command_continues_and_ends_in_the_same_bytes(made, tmp_path):
    split, weights, whole = made
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"recipe": recipe_of(SHARED).to_dict()}))
    (run / "model.safetensors").write_bytes(weights.read_bytes())
    words = ["targets", str(run), str(split), "--out", str(tmp_path / "t"), "--cycle", "2", "--workers", "1", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "maskstream", *words], stdout=subprocess.DEVNULL, start_new_session=True
    )
    while not (tmp_path / "t" / "targets-000000.tar").exists():
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = CliRunner().invoke(app, [*words, "--device", "cpu"])
    assert done.exit_code == 0, (done.output, done.exception)
    facts = json.loads(done.stdout)
    assert (facts["samples"], facts["shards"], facts["rejects"]) == (11, 3, 0)
    assert all((tmp_path / "t" / one.name).read_bytes() == one.read_bytes() for one in whole.glob("*.tar"))
    assert verify(tmp_path / "t").ok


@pytest.mark.slow
def test_workers_and_remote_targets_give_the_same(made):
    split, _, folder = made
    data = replace(SHARED, targets=str(folder))
    own = shown(data, split)[0]
    loader = data.loader(split, workers=1, **{**LOADING, "threads": None})
    for wanted, batch in zip(own, loader, strict=False):
        assert batch.key == wanted.key
        assert torch.equal(batch.fields[TARGETS], wanted.fields[TARGETS])
    loader.close()


def test_a_teacher_of_another_grid_and_a_model_without_tokens_are_refused(made, tmp_path):
    split, weights, _ = made
    small = replace(SHARED, patch=8)
    with pytest.raises(ValueError, match="teacher and student must have the same tokens"):
        TargetsJob(weights, split, tmp_path / "t", recipe=recipe_of(small))
    with pytest.raises(ValueError, match="dtype must be 'float32' or 'float16', got 'int8'"):
        TargetsJob(weights, split, tmp_path / "t", recipe=recipe_of(SHARED), dtype="int8")
    named = TargetsJob(weights, split, recipe=recipe_of(SHARED)).output.location
    other = TargetsJob(weights, split, recipe=recipe_of(SHARED), cycle=2).output.location
    assert str(named).startswith(f"{split}-targets-")
    assert named != other
    assert np.array_equal(Manifest.load(split).shard_samples, [5, 2, 4])
