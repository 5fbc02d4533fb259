"""A teacher among ranks: in divided checkpoints, over other numbers of ranks, and over kills."""

import json
import signal
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from maskstream.shards.checksummed import add_checksum, read_checksummed
from maskstream.shards.errors import ResumeError
from maskstream.train import load_model
from maskstream.train.core.weights import FileSum
from maskstream.train.recipes import chosen_recipe

from ...pipelines.every_modality import write_split
from ..ranks import forked
from ..test_every_recipe import CUTS
from .teacher_ranks import run

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("teacher_ranks.py")
STEPS, SAMPLES = 6, 6
RECIPES = {"ajepa-tiny": "audio", "ijepa-tiny": "image", "vjepa2-tiny": "video"}
LAW = ("model.momentum.start=0.5", "model.momentum.end=0.9")
"""A teacher that moves far in six steps."""


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    return {name: str(write_split(kind, tmp_path_factory.mktemp("teacher") / kind)) for name, kind in RECIPES.items()}


def words(name, splits, **options):
    sets = (*CUTS[name.partition("-")[0]], *LAW)
    options = {"steps": STEPS, "samples": SAMPLES, "precision": "fp32", "parallel": "fsdp", "save_every": 1, **options}
    return name, sets, splits[name], options


def ranks(number, out, name, splits, **options):
    """Trains with a number of ranks. Returns their exit codes and what they wrote."""
    name, sets, data, options = words(name, splits, **options)
    return forked(SCRIPT, [out, name, json.dumps(sets), data, json.dumps(options)], number)


def trained(number, out, name, splits, **options):
    """Trains with a number of ranks, one of them in this process. Returns the step after which they began."""
    if number == 1:
        return run(out, *words(name, splits, **options))
    codes, output = ranks(number, out, name, splits, **options)
    assert codes == [0] * number, output
    return int(output.split("begun after step ")[1].split()[0])


def weights(out):
    return load_model(out / "model.safetensors").state_dict()


def farthest(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in other)


@pytest.mark.parametrize("name", RECIPES)
def test_one_rank_becomes_two_and_three_and_the_teacher_is_that_of_one(name, splits, tmp_path):
    one, several = tmp_path / "one", tmp_path / "several"
    trained(1, one, name, splits)
    assert [trained(n, several, name, splits, until=2 * n) for n in (1, 2, 3)] == [0, 2, 4]
    ours, expected = weights(several), weights(one)
    print(name, "farthest", farthest(ours, expected))
    assert farthest(ours, expected) < 2e-6
    start = chosen_recipe(*words(name, splits)[:2]).build().state_dict()
    moved = [n for n in expected if n.startswith("teacher.") and (expected[n] - start[n]).abs().max() > 1e-5]
    assert moved, "a teacher that stands still would be equal too"


@pytest.mark.parametrize("name", RECIPES)
def test_killed_ranks_go_on_with_the_teacher_bit_by_bit(name, splits, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    trained(2, whole, name, splits)
    for dies_at in (2, 5):
        codes, output = ranks(2, killed, name, splits, dies_at=dies_at)
        assert -signal.SIGKILL in codes, output
        assert 0 not in codes, output
    assert 3 <= trained(2, killed, name, splits) <= 4
    ours, expected = weights(killed), weights(whole)
    assert all(torch.equal(ours[n], expected[n]) for n in expected)


def test_each_rank_writes_its_rows_of_the_teacher_and_none_may_lack(splits, tmp_path):
    trained(2, tmp_path, "ijepa-tiny", splits, until=2)
    checkpoint = tmp_path / "checkpoints/step-00000002"
    parts = [checkpoint / f"model-{i:05d}-of-00002.safetensors" for i in range(2)]
    state = read_checksummed((checkpoint / "state.json").read_bytes())
    assert {path.name for path in parts} <= state["files"].keys()
    found = [load_file(path) for path in parts]
    whole = load_model(checkpoint / "model.safetensors").state_dict()
    teacher = [n for n in whole if n.startswith("teacher.")]
    assert teacher
    for n in teacher:
        rows = [part[n] for part in found if n in part]
        assert torch.equal(torch.cat(rows), whole[n])
        assert len(rows) == (2 if whole[n].ndim > 1 else 1)
    for lacking in ([1], [0, 1]):
        for i in lacking:
            save_file({n: w for n, w in found[i].items() if not n.startswith("teacher.")}, parts[i])
            state["files"][parts[i].name] = asdict(FileSum.of(parts[i].read_bytes()))
        (checkpoint / "state.json").write_bytes(add_checksum(state))
        with pytest.raises(ResumeError, match="teacher"):
            trained(1, tmp_path, "ijepa-tiny", splits)
