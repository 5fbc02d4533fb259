"""What is compiled, and ranks that share gradients or weights: they train what one trains, and go on, killed or not."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from maskstream.train import load_model, named_recipe, read_metrics
from maskstream.train.core.parallel import compile_parts, list_blocks
from maskstream.train.recipes import chosen_recipe

from .ranks_of_any_kind import run

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
MOSAIC = chosen_recipe("mosaicbert-tiny", ["model.positions=alibi"])
SCRIPT = Path(__file__).with_name("ranks_of_any_kind.py")
STEPS = 7


BUSY = """
import threading, time, torch, torch.distributed as dist
from maskstream.train.core.distributed import process_group
begun = threading.Event()
def busy(_):
    begun.set()
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        pass
with process_group("cpu"):
    kept = dist.group.WORLD
    time.sleep(0.2 * dist.get_rank())
    dist.all_reduce(torch.zeros(1), async_op=True).get_future().then(busy)
    begun.wait()
"""


@pytest.fixture
def compiled(monkeypatch):
    """Which modules were compiled, and whether each had to be one graph."""
    found = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, fullgraph: found.append((module, fullgraph)))
    return found


@pytest.mark.parametrize(
    ("recipe", "how", "device", "whole", "parts"),
    [
        (named_recipe("bert-tiny"), "auto", CPU, None, None),
        (named_recipe("bert-tiny"), "no", CUDA, None, None),
        (named_recipe("bert-tiny"), "auto", CUDA, True, None),
        (named_recipe("bert-tiny"), "block", CUDA, None, True),
        (MOSAIC, "auto", CUDA, None, False),
        (named_recipe("mpm-tiny"), "auto", CUDA, None, False),
        (named_recipe("mpm-tiny"), "model", CPU, True, None),
    ],
)
def test_what_is_compiled(recipe, how, device, whole, parts, compiled):
    with torch.device("meta"):
        model = recipe.build()
    compile_parts(model, how, device)
    assert compiled == (
        ([] if whole is None else [(model, whole)])
        + ([] if parts is None else [(block, parts) for block in list_blocks(model)])
    )


def test_a_divided_model_is_compiled_by_blocks(compiled, monkeypatch):
    monkeypatch.setattr("maskstream.train.core.parallel.is_divided", lambda parameter: True)
    with torch.device("meta"):
        model = named_recipe("mae-tiny").build()
    compile_parts(model, "auto", CUDA)
    assert compiled == [(block, False) for block in list_blocks(model)]


def ranks(number, out, *, fields=None, loader=None, limit_s=100, **options):
    """Trains with a number of ranks. Returns their exit codes and what they wrote."""
    words = [fields or {}, loader or {}, {"steps": STEPS, "precision": "fp32", **options}]
    return ended([SCRIPT, out, *map(json.dumps, words)], number, limit_s)


def ended(words, number, limit_s):
    """Runs Python with these words as each of the ranks. Returns their exit codes and what they wrote."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(number), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, *words],
            env={**os.environ, **place, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(number)
    ]
    try:
        outputs = [process.communicate(timeout=limit_s)[0] for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    return [process.returncode for process in started], "\n".join(outputs)


def trained(number, out, *, fields=None, loader=None, **options):
    """Trains with a number of ranks, one of them in this process. Returns the step after which they began."""
    if number == 1:
        return run(out, fields or {}, loader or {}, {"steps": STEPS, "precision": "fp32", **options}, "cpu")
    codes, output = ranks(number, out, fields=fields, loader=loader, **options)
    assert codes == [0] * number, output
    return int(output.split("begun after step ")[1].split()[0])


def test_a_thread_of_gloo_that_is_at_work_when_a_group_ends_aborts_nobody():
    """Also where something keeps the group, so that its threads live until the interpreter has ended."""
    codes, output = ended(["-c", BUSY], 2, 60)
    assert codes == [0, 0], output


def weights(out):
    return load_model(out / "model.safetensors").state_dict()


def near(one, other, limit=2e-5):
    return all(torch.allclose(one[name], other[name], atol=limit) for name in other)


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in other)


def numbers(out):
    return [(m.step, m.epoch, m.loss, m.grad_norm) for m in read_metrics(out / "metrics.jsonl")]


def no_checkpoint_is_nan(out):
    found = list((out / "checkpoints").glob("step-*"))
    for checkpoint in found:
        tensors = load_model(checkpoint / "model.safetensors").state_dict().values()
        assert all(tensor.isfinite().all() for tensor in tensors)
    return bool(found)


def divided_and_whole(tmp_path):
    """The runs of one rank, and of two that stopped after step 3 and went on as one."""
    fields = {"average": 0.9}
    one, two = tmp_path / "one", tmp_path / "two"
    trained(1, one, fields=fields)
    trained(2, two, fields=fields, parallel="fsdp", until=3, save_every=2, checkpoint_blocks=True)
    files = sorted(path.name for path in (two / "checkpoints/step-00000003").iterdir())
    assert files == [
        *(f"{name}-{part:05d}-of-00002.safetensors" for name in ("model", "optimiser") for part in range(2)),
        "state.json",
    ]
    assert no_checkpoint_is_nan(two)
    single = tmp_path / "single"
    shutil.copytree(two, single)
    assert trained(1, single, fields=fields) == 3
    assert near(weights(single), weights(one))
    assert numbers(single)[-1][:3] == pytest.approx(numbers(one)[-1][:3], rel=1e-4)
    return one, two


def test_ranks_that_share_weights_train_what_one_trains_and_one_goes_on_from_their_checkpoint(tmp_path):
    divided_and_whole(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_go_on_from_a_divided_checkpoint(tmp_path, parallel):
    one, two = divided_and_whole(tmp_path)
    assert trained(2, two, fields={"average": 0.9}, parallel=parallel) == 3
    assert near(weights(two), weights(one))
    assert numbers(two)[-1][:3] == pytest.approx(numbers(one)[-1][:3], rel=1e-4)


@pytest.mark.parametrize(
    ("number", "parallel", "dies_at"),
    [
        (1, "ddp", 4),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [(2, "fsdp", 4), (2, "ddp", 5), (2, "fsdp", 3), (2, "ddp", 2), (1, "fsdp", 5)]
        ),
    ],
)
def test_a_killed_run_with_dropout_goes_on_bit_by_bit(tmp_path, number, parallel, dies_at):
    settings = {"parallel": parallel, "dropout": True, "save_every": 1}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    trained(number, whole, **settings)
    codes, output = ranks(number, killed, loader={"dies_at": dies_at}, **settings)
    assert set(codes) == {-9}, output
    assert no_checkpoint_is_nan(killed)
    assert dies_at - 2 <= trained(number, killed, **settings) <= dies_at
    assert equal(weights(killed), weights(whole))
    assert numbers(killed) == numbers(whole)


@pytest.mark.parametrize("parallel", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_a_loader_that_fails_on_one_rank_ends_all_with_a_checkpoint(tmp_path, parallel):
    codes, output = ranks(2, tmp_path, loader={"fails_at": 4}, parallel=parallel)
    assert codes == [1, 1], output
    assert "too many are bad" in output
    assert "another rank has no batch" in output
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]
    assert trained(1, tmp_path) == 4
