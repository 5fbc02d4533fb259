import json
import os
import signal
import sys
from dataclasses import replace

import pytest
import torch

from maskstream.shards.errors import ResumeError, SampleError
from maskstream.train import Trainer, load_model, read_metrics
from maskstream.train.core.optimiser import OptimiserConfig

from ..ranks import forked


def weights(out):
    return load_model(out / "model.safetensors").state_dict()


def equal(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def trainer(recipe, synthetic_loader, tmp_path):
    """Builds trainers on fresh loaders; every one is a process of its own as far as state goes."""

    def build(name, *, loader=None, **settings):
        if loader is None:
            loader = synthetic_loader(batches=5)
        return Trainer(settings.pop("recipe", recipe), loader, tmp_path / name, **{"progress": False, **settings})

    return build


@pytest.mark.parametrize("stop", [3, 5, 7], ids=["mid-epoch", "end-of-epoch", "next-epoch"])
def test_a_resumed_run_equals_one_that_never_stopped_bit_by_bit(trainer, stop):
    whole = trainer("whole", steps=12).run()
    assert trainer("parts", steps=12).run(until=stop).step == stop
    assert not (whole.out.parent / "parts/model.safetensors").exists()
    second = trainer("parts", steps=12)
    assert second.step == stop
    parts = second.run()
    assert whole.finished
    assert parts.finished
    assert equal(weights(whole.out), weights(parts.out))
    seen = [
        [(m.step, m.epoch, m.loss, m.lr, m.grad_norm) for m in read_metrics(r.out / "metrics.jsonl")]
        for r in (whole, parts)
    ]
    assert seen[0] == seen[1]
    assert [m[0] for m in seen[0]] == list(range(1, 13))
    assert [m[1] for m in seen[0]] == [0] * 5 + [1] * 5 + [2] * 2


def test_it_resumes_from_the_last_checkpoint_after_a_crash(trainer, synthetic_loader):
    whole = trainer("whole", steps=10).run()
    loader = synthetic_loader(batches=5)

    def crash(made):
        if made == 7:
            raise RuntimeError("the machine is gone")

    loader.before_batch = crash
    with pytest.raises(RuntimeError, match="gone"):
        trainer("crashed", loader=loader, steps=10, save_every=4).run()
    assert [m.step for m in read_metrics(whole.out.parent / "crashed/metrics.jsonl")] == list(range(1, 8))
    again = trainer("crashed", steps=10, save_every=4)
    assert again.step == 4
    assert equal(weights(whole.out), weights(again.run().out))
    assert [m.step for m in read_metrics(again.out / "metrics.jsonl")] == list(range(1, 11))


@pytest.mark.parametrize("at", [3, 4, 0], ids=["after a step", "just after a checkpoint", "at once"])
def test_an_error_of_the_loader_about_data_loses_no_step(trainer, synthetic_loader, at):
    whole = trainer("whole", steps=10).run()
    loader = synthetic_loader(batches=5)

    def fail(made):
        if made == at:
            raise SampleError(shard="a", key="b", component="c", reason="too many are bad")

    loader.before_batch = fail
    with pytest.raises(SampleError, match="too many are bad"):
        trainer("failed", loader=loader, steps=10, save_every=4).run()
    again = trainer("failed", steps=10, save_every=4)
    assert again.step == at
    assert equal(weights(whole.out), weights(again.run().out))
    assert [m.step for m in read_metrics(again.out / "metrics.jsonl")] == list(range(1, 11))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(trainer, synthetic_loader, capsys, number):
    before = signal.getsignal(number)
    loader = synthetic_loader(batches=5)
    loader.before_batch = lambda made: os.kill(os.getpid(), number) if made == 2 else None
    result = trainer("run", loader=loader, steps=10, progress=True).run()
    assert (result.step, result.finished) == (3, False)
    assert "stopped after step 3 of 10" in capsys.readouterr().err
    assert signal.getsignal(number) is before
    resumed = trainer("run", steps=10)
    assert resumed.step == 3
    assert equal(weights(resumed.run().out), weights(trainer("whole", steps=10).run().out))
    capsys.readouterr()
    assert trainer("run", steps=10, progress=True).run().finished
    assert "has completed its 10 steps; pass more --steps to continue" in " ".join(capsys.readouterr().err.split())


def test_a_loader_without_end_trains_the_same_and_is_not_asked_for_epochs(trainer, synthetic_loader):
    class Endless(synthetic_loader):
        def repeat(self):
            while True:
                yield from super().__iter__()

        def __iter__(self):
            raise AssertionError("repeat() is there")

    whole = trainer("whole", steps=12).run()
    trainer("endless", loader=Endless(batches=5), steps=12).run(until=7)
    endless = trainer("endless", loader=Endless(batches=5), steps=12).run()
    assert equal(weights(whole.out), weights(endless.out))
    assert [m.epoch for m in read_metrics(endless.out / "metrics.jsonl")] == [0] * 5 + [1] * 5 + [2] * 2


def test_a_finished_run_is_left_as_it_is(trainer):
    first = trainer("run", steps=3).run()
    before = weights(first.out)
    again = trainer("run", steps=3).run()
    assert (again.step, again.loss) == (3, None)
    assert equal(weights(first.out), before)
    assert len(read_metrics(first.out / "metrics.jsonl")) == 3


def test_as_many_checkpoints_stay_as_asked(trainer):
    out = trainer("run", steps=9, save_every=2, keep=3).run().out
    kept = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert kept == ["step-00000006", "step-00000008", "step-00000009"]


def test_without_resume_it_starts_over(trainer):
    trainer("run", steps=4, save_every=2).run()
    fresh = trainer("run", steps=4, resume=False)
    assert fresh.step == 0
    assert list((fresh.out / "checkpoints").glob("step-*")) == []
    fresh.run(until=1)
    assert [m.step for m in read_metrics(fresh.out / "metrics.jsonl")] == [1]


def test_other_settings_do_not_resume(trainer, recipe, synthetic_loader):
    trainer("run", steps=2).run()
    with pytest.raises(ResumeError, match="seed: saved 0, here 1"):
        trainer("run", steps=2, seed=1)
    with pytest.raises(ResumeError, match=r"recipe\.optimiser\.weight_decay: saved 0\.05, here 0\.2"):
        trainer("run", steps=2, recipe=replace(recipe, optimiser=OptimiserConfig(weight_decay=0.2)))
    with pytest.raises(ResumeError, match="saved with seed 0"):
        trainer("run", steps=2, loader=synthetic_loader(seed=9))


def test_a_longer_plan_is_allowed_and_said(trainer, caplog):
    trainer("run", steps=2).run()
    longer = trainer("run", steps=4)
    assert "planned for 2 steps, now for 4" in caplog.text
    assert longer.run().step == 4


def test_the_length_comes_from_the_recipe(trainer):
    assert trainer("run").steps == 2 * 5


def test_metrics_say_what_happened(trainer, recipe):
    result = trainer("run", steps=10).run()
    metrics = read_metrics(result.out / "metrics.jsonl")
    assert [m.lr for m in metrics] == pytest.approx([recipe.schedule.lr(step, 10, 4) for step in range(10)])
    assert all(m.clips_per_s > 0 and 0 <= m.data_wait_share <= 1 and m.grad_norm > 0 for m in metrics)
    assert result.loss == pytest.approx(sum(m.loss for m in metrics) / 10)
    about = json.loads((result.out / "run.json").read_text())
    assert (about["recipe"]["name"], about["steps"], about["seed"]) == ("test", 10, 0)
    assert type(recipe).from_dict(about["recipe"]) == recipe


def test_the_loss_falls(trainer, synthetic_loader):
    loader = synthetic_loader(batches=1)
    make = loader.make
    loader.make = lambda epoch, b: make(0, 0)
    result = trainer("run", loader=loader, steps=100).run()
    assert result.loss < 0.85 < read_metrics(result.out / "metrics.jsonl")[0].loss


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of torch's own tracing
@pytest.mark.parametrize("how", ["model", "block"])
def test_compiled_training_is_the_same_training(trainer, monkeypatch, how):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compile_with = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: compile_with(self, backend=backend, **how))
    compiled = trainer("compiled", steps=3, compile=how).run()
    assert len(graphs) == 1 if how == "model" else 2 <= len(graphs) <= 4
    plain = trainer("plain", steps=3).run()
    for name, tensor in weights(plain.out).items():
        assert torch.allclose(weights(compiled.out)[name], tensor, atol=1e-5)


def test_a_loss_that_is_not_finite_ends_the_run_unsaved(trainer):
    run = trainer("run", steps=5, save_every=1)
    run.run(until=2)
    with torch.no_grad():
        run.model.decoder.head[0].bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="loss of step 3 is nan"):
        run.run()
    assert trainer("run", steps=5).step == 2


def test_a_gradient_that_is_not_finite_ends_the_run_unsaved(trainer):
    run = trainer("run", steps=5, save_every=1)
    run.run(until=2)
    run.model.decoder.head[0].bias.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(FloatingPointError, match="gradient norm of step 3 is nan"):
        run.run()
    assert trainer("run", steps=5).step == 2


def test_what_cannot_be_trained_on_is_refused(trainer, synthetic_loader, recipe):
    with pytest.raises(ValueError, match="no batch"):
        trainer("run", loader=synthetic_loader(batches=0))
    for setting in ("steps", "save_every", "keep"):
        with pytest.raises(ValueError, match=rf"{setting} must be an integer of at least 1"):
            trainer("run", **{setting: 0})
    loader = synthetic_loader()
    make = loader.make
    loader.make = lambda epoch, b: replace(make(epoch, b), mask=None)
    with pytest.raises(ValueError, match="pass mask= to the loader"):
        trainer("run", loader=loader, steps=1).run()


RANK_SCRIPT = """
import importlib.util, sys, torch
torch.set_num_threads(1)
made = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location("synthetic", sys.argv[1]))
spec.loader.exec_module(made)
from dataclasses import replace
from pathlib import Path
from maskstream.train import Trainer
from maskstream.train.core.distributed import process_group, rank, world_size
with process_group("cpu") as device:
    assert world_size() == 2
    loader = made.SyntheticLoader(batches=3, size=2, rank=rank(), ranks=2, uneven=sys.argv[3] == "uneven")
    recipe = replace(made.small_recipe(), batch_size=2)
    for until in (2, None):
        options = dict(save_every=1, device=device, precision="fp32", progress=False)
        trainer = Trainer(recipe, loader, sys.argv[2], steps=4, **options)
        if until is None:
            assert trainer.step == (1 if sys.argv[3] == "damaged" else 2), trainer.step
        result = trainer.run(until)
        del trainer
        if until == 2 and rank() == 0 and sys.argv[3] == "damaged":
            open(sys.argv[2] + "/checkpoints/step-00000002/model.safetensors", "wb").close()
        torch.distributed.barrier()
    assert result.finished
names = {(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()}
assert not [name for name in names if "gloo" in name], names  # one that is alive at exit may abort the process
"""


@pytest.mark.slow
@pytest.mark.parametrize("weights_of", ["damaged", "even", "uneven"])
def test_two_ranks_train_what_one_trains_on_the_whole_batch(trainer, synthetic_loader, tmp_path, weights_of):
    """Also where the ranks' batches weigh 3 and 7, which a mean of their means would not know, and where the last
    checkpoint is damaged. In float32 on every machine: bf16 rounds the halves of a batch otherwise than the whole.
    """
    loader = synthetic_loader(batches=3, size=4, uneven=weights_of == "uneven")
    whole = trainer("whole", loader=loader, steps=4, precision="fp32").run()
    conftest = sys.modules[synthetic_loader.__module__].__file__
    (tmp_path / "rank.py").write_text(RANK_SCRIPT)
    codes, output = forked(tmp_path / "rank.py", [conftest, tmp_path / "ranks", weights_of], 2)
    assert codes == [0, 0], output
    for name, tensor in weights(tmp_path / "ranks").items():
        assert torch.allclose(weights(whole.out)[name], tensor, atol=2e-5), name
    losses = [[m.loss for m in read_metrics(out / "metrics.jsonl")] for out in (whole.out, tmp_path / "ranks")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert len(losses[1]) == 4
    assert [m.parts for m in read_metrics(tmp_path / "ranks/metrics.jsonl")] == [
        {"reconstruction": pytest.approx(loss)} for loss in losses[1]
    ]
