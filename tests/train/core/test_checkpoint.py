import errno
import json
import os
import pickle
from functools import partial
from itertools import count

import numpy as np
import pytest
import torch

from maskstream.shards.errors import ResumeError, StoreError
from maskstream.train import load_model, save_model
from maskstream.train.core.checkpoint import (
    Position,
    discard_checkpoints,
    find_newest_whole,
    list_checkpoints,
    load_checkpoint,
    remove_unfinished,
)
from maskstream.train.core.checkpoint_write import save_checkpoint
from maskstream.train.core.optimiser import build_optimiser, set_lr
from maskstream.train.core.weights import RunFileError, load_matching_weights


@pytest.fixture
def trained(recipe, batch):
    """A model and its optimiser after two steps."""
    model = recipe.build(seed=1)
    optimiser = build_optimiser(model, recipe.optimiser)
    for _ in range(2):
        step(model, optimiser, batch)
    return model, optimiser


def step(model, optimiser, batch):
    set_lr(optimiser, 0.01)
    model(batch).loss().backward()
    optimiser.step()
    optimiser.zero_grad()


def position(step=2, **settings):
    return Position(step=step, steps=9, loader={"epoch": 1, "batch": 3}, settings={"name": "test", **settings})


def same(model, other):
    return all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_weights_moments_and_position_come_back_exactly(trained, recipe, batch, tmp_path):
    model, optimiser = trained
    save_checkpoint(tmp_path, model, optimiser, position())
    fresh = recipe.build(seed=2)
    fresh_optimiser = build_optimiser(fresh, recipe.optimiser)
    assert not same(model, fresh)
    folder, found = find_newest_whole(tmp_path)
    assert found == position()
    load_checkpoint(folder, found, fresh, fresh_optimiser, {"name": "test"})
    assert same(model, fresh)
    step(model, optimiser, batch)
    step(fresh, fresh_optimiser, batch)
    assert same(model, fresh)


def test_a_checkpoint_holds_no_pickle(trained, tmp_path):
    folder = save_checkpoint(tmp_path, *trained, position())
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["model.safetensors", "optimiser.safetensors", "state.json"]
    for name in files:
        with pytest.raises((pickle.UnpicklingError, ValueError, KeyError, EOFError)):
            pickle.loads((folder / name).read_bytes())
    assert json.loads((folder / "state.json").read_text())["loader"] == {"epoch": 1, "batch": 3}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("keep", "kept"), [(1, [6]), (2, [4, 6]), (5, [2, 4, 6])])
def test_the_newest_are_kept(trained, tmp_path, keep, kept):
    assert find_newest_whole(tmp_path) is None
    for number in (2, 4, 6):
        save_checkpoint(tmp_path, *trained, position(number), keep=keep)
    assert names(tmp_path) == [f"step-{number:08d}" for number in kept]
    assert find_newest_whole(tmp_path) == (tmp_path / "step-00000006", position(6))
    discard_checkpoints(tmp_path)
    assert names(tmp_path) == []


def test_a_save_removes_the_later_ones_that_the_run_has_left_behind(trained, tmp_path):
    for number in (2, 4, 6, 8):
        save_checkpoint(tmp_path, *trained, position(number), keep=9)
    save_checkpoint(tmp_path, *trained, position(5), keep=2)
    assert names(tmp_path) == ["step-00000004", "step-00000005"]


def test_the_newest_is_that_of_the_highest_step_whatever_lies_beside_it(trained, tmp_path):
    for number in (99_999_999, 100_000_000):
        save_checkpoint(tmp_path, *trained, position(number))
    for other in ("step-00000004.copy", "step-5", "latest"):
        (tmp_path / other).mkdir()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-100000000", "step-99999999"]


def test_an_interrupted_save_leaves_the_last_checkpoint_as_it_was(trained, tmp_path, monkeypatch):
    save_checkpoint(tmp_path, *trained, position(2))
    before = {path.name: path.read_bytes() for path in (tmp_path / "step-00000002").iterdir()}

    def cut(*paths):
        raise OSError(errno.EIO, "cut")

    with monkeypatch.context() as patch:
        patch.setattr("maskstream.train.core.checkpoint_write.os.rename", cut)
        with pytest.raises(StoreError, match=r"step-00000004 cannot be written \(cut\); earlier"):
            save_checkpoint(tmp_path, *trained, position(4))
    assert names(tmp_path) == ["step-00000002"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "step-00000002").iterdir()} == before
    save_checkpoint(tmp_path, *trained, position(4))
    assert names(tmp_path) == ["step-00000002", "step-00000004"]


@pytest.mark.parametrize("full_at", range(8))
def test_a_full_disk_keeps_the_older_checkpoint_and_leaves_nothing_else(trained, tmp_path, monkeypatch, full_at):
    """At every fsync of a save, which are those of three files and of the folders that they appear in."""
    save_checkpoint(tmp_path, *trained, position(2))
    calls = count()

    def full(descriptor):
        if next(calls) == full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("maskstream.shards.stores.local_files.os.fsync", full)
        if full_at < 7:
            with pytest.raises(StoreError, match="not enough space to write"):
                save_checkpoint(tmp_path, *trained, position(4))
        else:
            save_checkpoint(tmp_path, *trained, position(4))
            assert next(calls) == 7, "all fsyncs of a save were tried"
    assert "step-00000002" in names(tmp_path)
    assert not list(tmp_path.glob(".*"))
    assert find_newest_whole(tmp_path) is not None


def test_what_killed_runs_left_is_removed(trained, tmp_path):
    save_checkpoint(tmp_path, *trained, position(2))
    for left in (".step-00000004.tmp", ".step-00000001.old.tmp"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "model.safetensors").write_bytes(b"half")
    remove_unfinished(tmp_path)
    assert names(tmp_path) == ["step-00000002"]


def test_other_settings_are_refused_with_their_names(trained, tmp_path):
    folder = save_checkpoint(tmp_path, *trained, position(seed="1"))
    with pytest.raises(ResumeError, match="seed: saved 1, here 2"):
        load_checkpoint(folder, position(seed="1"), *trained, {"name": "test", "seed": "2"})


def test_another_model_is_refused(trained, recipe, tmp_path):
    folder = save_checkpoint(tmp_path, *trained, position())
    other = torch.nn.Linear(2, 2)
    with pytest.raises(ResumeError, match="a different model"):
        load_checkpoint(folder, position(), other, build_optimiser(other, recipe.optimiser), {"name": "test"})


def test_an_exported_model_rebuilds_itself(trained, batch, tmp_path):
    model, _ = trained
    save_model(model, tmp_path / "model.safetensors", {"recipe": "test"})
    loaded = load_model(tmp_path / "model.safetensors")
    assert (loaded.config, loaded.grids) == (model.config, model.grids)
    assert same(model, loaded)
    mask = batch.mask
    assert torch.equal(
        loaded.predict(batch.video, mask.visible, mask.target), model.predict(batch.video, mask.visible, mask.target)
    )


def test_other_safetensors_are_no_model(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="contains no model config"):
        load_model(tmp_path / "a.safetensors")


@pytest.fixture
def exported(trained, tmp_path):
    save_model(trained[0], tmp_path / "model.safetensors", {"recipe": "test"})
    return tmp_path / "model.safetensors"


def test_no_flipped_bit_of_a_model_is_loaded(exported):
    """Of the header some are spaces and fields that change nothing."""
    data, whole = exported.read_bytes(), load_model(exported).state_dict()
    header = 8 + int.from_bytes(data[:8], "little")
    rng = np.random.default_rng(0)
    found = []
    for at in [*rng.integers(0, header * 8, 150), *rng.integers(header * 8, len(data) * 8, 150)]:
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8
        exported.write_bytes(changed)
        try:
            loaded = load_model(exported).state_dict()
            assert all(torch.equal(loaded[name], whole[name]) for name in whole)
        except (RunFileError, ValueError):
            found.append(at)
    assert sum(at >= header * 8 for at in found) == 150
    assert len(found) > 250


@pytest.mark.parametrize("kind", ["empty", "cut", "nuls", "fifo", "folder", "missing"])
def test_a_damaged_model_is_refused_for_what_it_is(exported, recipe, kind):
    data = exported.read_bytes()
    exported.unlink()
    contents = {"empty": b"", "cut": data[:-7], "nuls": bytes(len(data))}
    if kind in contents:
        exported.write_bytes(contents[kind])
    elif kind != "missing":
        {"fifo": os.mkfifo, "folder": os.mkdir}[kind](exported)
    for load in (load_model, partial(load_matching_weights, recipe.build())):
        with pytest.raises(
            RunFileError, match=r"model.safetensors (cannot be read|is not a file|is missing|has no model)"
        ):
            load(exported)


def test_weights_of_other_programs_have_no_checksum_and_are_taken(trained, recipe, tmp_path):
    from safetensors.torch import save_file

    save_file(trained[0].state_dict(), tmp_path / "a.safetensors")
    other = recipe.build(seed=5)
    assert load_matching_weights(other, tmp_path / "a.safetensors") == []
    assert same(trained[0], other)
