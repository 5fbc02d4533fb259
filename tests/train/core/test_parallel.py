"""What is compiled, and ranks that share gradients or weights: they train what one trains, and go on, killed or not."""

import json
import shutil
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from maskstream.train import load_model, named_recipe, read_metrics
from maskstream.train.core.distributed import is_divided, process_group
from maskstream.train.core.options import LoopSettings
from maskstream.train.core.parallel import compile_parts, divide, list_blocks, recompute_blocks, wrap_for_ranks
from maskstream.train.core.process import seeded
from maskstream.train.recipes import chosen_recipe

from ..ranks import ended, forked
from .ranks_of_any_kind import run

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
SCRIPT = Path(__file__).with_name("ranks_of_any_kind.py")
UNDER_NCCL = Path(__file__).with_name("ranks_under_nccl.py")
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
    """Which modules were compiled."""
    found = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: found.append(module))
    monkeypatch.setattr("maskstream.train.core.parallel.what_triton_lacks", lambda device: None)
    return found


def on_meta(recipe, *cuts):
    with torch.device("meta"):
        return chosen_recipe(recipe, cuts).build()


@pytest.mark.parametrize(
    ("recipe", "how", "device", "what"),
    [
        ("bert-tiny", "auto", CPU, "nothing"),
        ("bert-tiny", "no", CUDA, "nothing"),
        ("bert-tiny", "auto", CUDA, "model"),
        ("bert-tiny", "model", CPU, "model"),
        ("bert-tiny", "block", CUDA, "blocks"),
        ("mosaicbert-base", "auto", CUDA, "model"),
        ("roar-lstm-tiny", "auto", CUDA, "said"),
        ("roar-lstm-tiny", "model", CPU, "said"),
    ],
)
def test_what_is_compiled(recipe, how, device, what, compiled, caplog):
    model = on_meta(recipe)
    compile_parts(model, how, device)
    assert compiled == {"model": [model], "blocks": list_blocks(model)}.get(what, [])
    said = "the model is not compiled as a whole, since it is not one graph; it has no blocks, so nothing is"
    assert [said in record.message for record in caplog.records] == [True] * (what == "said")


@pytest.mark.parametrize(("how", "times"), [("auto", 0), ("model", 1)])
def test_a_divided_model_is_compiled_by_blocks(how, times, compiled, monkeypatch, caplog):
    monkeypatch.setattr("maskstream.train.core.parallel.is_divided", lambda parameter: True)
    model = on_meta("mae-tiny")
    compile_parts(model, how, CUDA)
    assert compiled == list_blocks(model)
    said = "since its rows are divided among ranks; each of its blocks is compiled instead"
    assert [said in record.message for record in caplog.records] == [True] * times


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ({"find_spec": lambda name: None}, "Triton"),
        (
            {"torch.cuda.get_device_properties": lambda device: SimpleNamespace(major=6)},
            "a GPU of the Volta generation",
        ),
        ({"shutil.which": lambda name: None}, "a C compiler"),
        ({"sysconfig.get_path": lambda name: "/nowhere"}, "Python's headers"),
    ],
)
def test_without_what_triton_needs_nothing_is_compiled(lacks, said, monkeypatch, caplog):
    monkeypatch.delenv("CC", raising=False)
    there = {
        "find_spec": lambda name: name,
        "torch.cuda.get_device_properties": lambda device: SimpleNamespace(major=8),
        "shutil.which": lambda name: f"/usr/bin/{name}",
        "Path.exists": lambda path: str(path).startswith("/") and "nowhere" not in str(path),
    }
    for name, stand_in in (there | lacks).items():
        monkeypatch.setattr(f"maskstream.train.core.parallel.{name}", stand_in)
    found = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: found.append(module))
    compile_parts(on_meta("mae-tiny"), "auto", CUDA)
    assert not found
    assert [said in record.message for record in caplog.records] == [True]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of torch's own tracing
def test_blocks_that_are_computed_again_are_compiled():
    model = on_meta("mae-tiny", "data.size=32", "data.patch=8", "model.width=32", "model.heads=2").to_empty(device=CPU)
    recompute_blocks(model)
    block = list_blocks(model)[0]
    block.compile(fullgraph=True, backend="eager")
    x = torch.randn(2, 3, 32, requires_grad=True)
    for p in block.parameters():
        nn.init.normal_(p)
    block(x).sum().backward()
    compiled, x.grad = x.grad, None
    with torch.compiler.set_stance("force_eager"):
        block(x).sum().backward()
    assert torch.allclose(x.grad, compiled, rtol=1e-4)


def test_a_card_is_current_and_its_generator_is_seeded(monkeypatch):
    entered, seeds = [], []

    @contextmanager
    def current(device):
        entered.append(str(device))
        yield
        entered.append("left")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", current)
    monkeypatch.delenv("RANK", raising=False)
    with process_group("cuda:1") as device:
        assert (str(device), entered) == ("cuda:1", ["cuda:1"])
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: seeds.append((entered[-1], seed)))
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: nullcontext())
    with seeded(7, torch.device("cuda:1")):
        pass
    assert (entered, seeds) == (["cuda:1", "left", "cuda:1", "left"], [("cuda:1", 7)])


def ranks(number, out, *, fields=None, loader=None, **options):
    """Trains with a number of ranks. Returns their exit codes and what they wrote."""
    words = [fields or {}, loader or {}, {"steps": STEPS, "precision": "fp32", **options}]
    return forked(SCRIPT, [out, *map(json.dumps, words)], number)


def trained(number, out, *, fields=None, loader=None, **options):
    """Trains with a number of ranks, one of them in this process. Returns the step after which they began."""
    if number == 1:
        return run(out, fields or {}, loader or {}, {"steps": STEPS, "precision": "fp32", **options}, "cpu")
    codes, output = ranks(number, out, fields=fields, loader=loader, **options)
    assert codes == [0] * number, output
    return int(output.split("begun after step ")[1].split()[0])


@pytest.mark.slow
def test_a_thread_of_gloo_that_is_at_work_when_a_group_ends_aborts_nobody():
    """Also where something keeps the group, so that its threads live until the interpreter has ended."""
    codes, output = ended(["-c", BUSY], 2)
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
def test_a_group_of_one_rank_shares_as_several_do():
    """What `make gpu` runs of NCCL on one card."""
    model, other = (named_recipe("bert-tiny").build() for _ in range(2))
    divide(model, CPU)
    assert not any(map(is_divided, model.parameters()))
    assert wrap_for_ranks(other, CPU) is other
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        divide(model, CPU)
        assert all(is_divided(p) == (p.ndim > 1) for p in model.parameters())
        assert isinstance(wrap_for_ranks(other, CPU), DistributedDataParallel)
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_go_on_from_a_divided_checkpoint(tmp_path, parallel):
    one, two = divided_and_whole(tmp_path)
    assert trained(2, two, fields={"average": 0.9}, parallel=parallel) == 3
    assert near(weights(two), weights(one))
    assert numbers(two)[-1][:3] == pytest.approx(numbers(one)[-1][:3], rel=1e-4)


@pytest.mark.slow
def test_blocks_gather_bf16_where_products_are_bf16_and_train_what_whole_weights_do(tmp_path):
    whole, divided = tmp_path / "whole", tmp_path / "divided"
    codes, output = ranks(2, whole, parallel="ddp", precision="bf16", says_types=True)
    assert codes == [0, 0], output
    assert "types torch.float32 torch.float32" in output
    codes, output = ranks(2, divided, parallel="fsdp", precision="bf16", says_types=True)
    assert codes == [0, 0], output
    assert "types torch.bfloat16 torch.float32" in output
    assert near(weights(divided), weights(whole), 1e-4)
    assert numbers(divided)[-1] == pytest.approx(numbers(whole)[-1], rel=1e-4)


@pytest.mark.slow
def test_copies_of_divided_weights_train_what_one_rank_trains_and_other_numbers_of_ranks_go_on(tmp_path):
    fields = {"average": 0.9}
    one, four = tmp_path / "one", tmp_path / "four"
    trained(1, one, fields=fields)
    trained(4, four, fields=fields, parallel="fsdp", replicas=2, until=3)
    files = sorted(path.name for path in (four / "checkpoints/step-00000003").iterdir())
    assert files == [
        *(f"{name}-{part:05d}-of-00002.safetensors" for name in ("model", "optimiser") for part in range(2)),
        "state.json",
    ]
    assert trained(2, four, fields=fields, parallel="fsdp") == 3
    assert near(weights(four), weights(one))
    assert numbers(four) == [pytest.approx(row, rel=1e-4) for row in numbers(one)]


def test_ranks_that_do_not_divide_into_copies_are_refused():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match="1 ranks are not a multiple of replicas=2"):
            divide(torch.nn.Linear(2, 2), CPU, replicas=2)
    finally:
        dist.destroy_process_group()
    with pytest.raises(ValueError, match="replicas need parallel='fsdp'"):
        LoopSettings(replicas=2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of torch's own tracing
def test_divided_compiled_and_computed_again_two_ranks_become_three_and_train_what_one_trains(tmp_path):
    fields, loader, one, several = {"average": 0.9}, {"samples": 6}, tmp_path / "one", tmp_path / "several"
    trained(1, one, fields=fields, loader=dict(loader))
    compiled = {"parallel": "fsdp", "compile": "model", "backend": "aot_eager", "checkpoint_blocks": True}
    codes, output = ranks(2, several, fields=fields, loader=loader, until=3, **compiled)
    assert codes == [0, 0], output
    assert output.count("since its rows are divided among ranks; each of its blocks is compiled instead") == 1
    assert trained(3, several, fields=fields, loader=loader, **compiled) == 3
    assert near(weights(several), weights(one))
    assert numbers(several)[-1][:3] == pytest.approx(numbers(one)[-1][:3], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_what_is_done_under_nccl_trains_the_same_with_gloo_in_its_place(tmp_path, parallel):
    words = [tmp_path / "nccl", "{}", "{}", json.dumps({"steps": STEPS, "precision": "fp32", "parallel": parallel})]
    codes, output = ended([UNDER_NCCL, *words], 2)
    assert codes == [0, 0], output
    for rank in range(2):
        did = json.loads((tmp_path / f"nccl.{rank}").read_text())
        assert did["events"][:3] == [f"enter cuda:{rank}", "group nccl", "second group gloo"]
        assert did["events"][-2:] == ["destroy", f"leave cuda:{rank}"]
        assert did["on the second group"] == STEPS
    trained(2, tmp_path / "gloo", parallel=parallel)
    assert equal(weights(tmp_path / "nccl"), weights(tmp_path / "gloo"))


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


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_loader_that_fails_on_one_rank_ends_all_with_a_checkpoint(tmp_path, parallel):
    codes, output = ranks(2, tmp_path, loader={"fails_at": 4}, parallel=parallel)
    assert codes == [1, 1], output
    assert "too many are bad" in output
    assert "another rank has no batch" in output
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]
    assert trained(1, tmp_path) == 4
