"""Where a step's time goes, what it says of gradients and memory, and its trace."""

import gzip
import json
import time

import pytest
import torch

from maskstream.train import Trainer, read_metrics
from maskstream.train.core.optimiser import OptimiserConfig, limit_gradients
from maskstream.train.core.options import LoopSettings
from maskstream.train.core.timing import StepClock


def test_the_laps_of_a_part_add_up():
    clock = StepClock(torch.device("cpu"))
    for name in ("forward", "backward", "forward"):
        time.sleep(0.001)
        clock.lap(name)
    found = clock.seconds()
    assert list(found) == ["forward", "backward"]
    assert found["forward"] >= 0.002


def test_the_norm_of_the_gradient_is_torch_s_bit_by_bit_and_that_of_its_parts(recipe, batch):
    model = recipe.build()
    model(batch).loss().backward()
    wanted = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
    norm, parts = limit_gradients(model, OptimiserConfig())
    assert torch.equal(norm, wanted)
    assert list(parts) == ["encoder", "decoder"]
    for name, one in parts.items():
        own = [p.grad for p in getattr(model, name).parameters()]
        assert one.item() == pytest.approx(torch.nn.utils.get_total_norm(own).item(), rel=1e-6)


def test_metrics_say_where_the_time_went(recipe, synthetic_loader, tmp_path):
    Trainer(recipe, synthetic_loader(), tmp_path, steps=3, save_every=2, progress=False).run()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    for row in rows:
        assert {"data", "forward", "backward", "optimiser"} <= row.seconds.keys()
        assert min(row.seconds.values()) >= 0
        assert row.grad_norm**2 == pytest.approx(sum(one**2 for one in row.grad_norms.values()), rel=1e-5)
        assert row.peak_bytes["host"] > 1e8
    assert [row.step for row in rows if "checkpoint" in row.seconds] == [3]


@pytest.mark.slow
def test_a_profile_traces_its_steps(recipe, synthetic_loader, tmp_path):
    Trainer(recipe, synthetic_loader(), tmp_path, steps=4, progress=False, profile=(2, 3)).run()
    (trace,) = (tmp_path / "profile").iterdir()
    assert trace.name == "steps-2-3.json.gz"
    events = [one.get("name") for one in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]]
    assert events.count("Optimizer.step#AdamW.step") == 2


def test_a_profile_has_a_first_and_a_last_step():
    with pytest.raises(ValueError, match="first and a last step"):
        LoopSettings(profile=(3, 2))
