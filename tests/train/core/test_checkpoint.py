import json
import pickle

import pytest
import torch

from maskstream.shards.errors import ResumeError
from maskstream.train import load_model, save_model
from maskstream.train.core.checkpoint import (
    Position,
    discard_checkpoints,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from maskstream.train.core.optimiser import build_optimiser, set_lr


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
    assert load_checkpoint(latest_checkpoint(tmp_path), fresh, fresh_optimiser, {"name": "test"}) == position()
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


def test_the_newest_are_kept_and_the_last_is_pointed_at(trained, tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for number in (2, 4, 6):
        save_checkpoint(tmp_path, *trained, position(number))
    assert [path.name for path in sorted(tmp_path.glob("*"))] == ["latest", "step-00000004", "step-00000006"]
    assert latest_checkpoint(tmp_path) == tmp_path / "step-00000006"
    discard_checkpoints(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_save_leaves_the_last_checkpoint_as_it_was(trained, recipe, tmp_path, monkeypatch):
    save_checkpoint(tmp_path, *trained, position(2))
    monkeypatch.setattr(
        "maskstream.train.core.checkpoint.os.rename", lambda *paths: (_ for _ in ()).throw(OSError("cut"))
    )
    with pytest.raises(OSError, match="cut"):
        save_checkpoint(tmp_path, *trained, position(4))
    monkeypatch.undo()
    assert latest_checkpoint(tmp_path).name == "step-00000002"
    save_checkpoint(tmp_path, *trained, position(4))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000002", "step-00000004"]


def test_other_settings_are_refused_with_their_names(trained, tmp_path):
    folder = save_checkpoint(tmp_path, *trained, position(seed="1"))
    with pytest.raises(ResumeError, match="seed: saved 1, here 2"):
        load_checkpoint(folder, *trained, {"name": "test", "seed": "2"})


def test_damage_and_other_models_are_refused(trained, recipe, tmp_path):
    folder = save_checkpoint(tmp_path, *trained, position())
    other = torch.nn.Linear(2, 2)
    with pytest.raises(ResumeError, match="another model"):
        load_checkpoint(folder, other, build_optimiser(other, recipe.optimiser), {"name": "test"})
    data = (folder / "optimiser.safetensors").read_bytes()
    (folder / "optimiser.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ResumeError, match="cannot be read"):
        load_checkpoint(folder, *trained, {"name": "test"})
    (tmp_path / "latest").write_text("step-00000099")
    with pytest.raises(ResumeError, match="step-00000099"):
        latest_checkpoint(tmp_path)


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
    with pytest.raises(ValueError, match="has no config of a model"):
        load_model(tmp_path / "a.safetensors")
