"""A training run whose loader workers are killed is the undisturbed run, bit by bit."""

import os
import signal
from contextlib import closing
from itertools import count

import numpy as np
import pytest
import torch

from maskstream.pipelines import Loader
from maskstream.train import Trainer, load_model, read_metrics

WORKERS = 2
AHEAD = 3 * WORKERS
"""After so many batches a dead worker has been noticed."""
SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP, signal.SIGABRT)


def trained(recipe, split, out, steps, workers):
    with closing(recipe.loader(split, steps=steps, workers=workers, threads=1, worker_timeout=2.0)) as loader:
        result = Trainer(recipe, loader, out, steps=steps, progress=False).run()
        assert result.finished
        numbers = [(m.step, m.epoch, m.loss, m.parts, m.grad_norm) for m in read_metrics(out / "metrics.jsonl")]
        return numbers, load_model(out / "model.safetensors").state_dict(), loader.stats()["restarts"]


@pytest.mark.parametrize("kills", [pytest.param(kills, marks=pytest.mark.slow) for kills in (2, 8)])
def test_metrics_and_weights_are_those_of_a_run_without_kills(recipe, eleven, tmp_path, monkeypatch, kills):
    steps = (AHEAD + 2) * (kills + 1)
    wanted, weights, _ = trained(recipe, eleven, tmp_path / "whole", steps, 0)
    rng, number, before, hit = np.random.default_rng(kills), count(), Loader._next, []
    moments = {(AHEAD + 2) * kill + int(rng.integers(1, 3)): SIGNALS[kill % len(SIGNALS)] for kill in range(kills)}

    def next_batch(self, source):
        how = moments.get(next(number))
        if how is not None:
            alive = [pid for pid in self._production.pool.pids if pid not in hit]
            hit.append(alive[int(rng.integers(len(alive)))])
            os.kill(hit[-1], how)
        return before(self, source)

    monkeypatch.setattr(Loader, "_next", next_batch)
    got, others, restarts = trained(recipe, eleven, tmp_path / "killed", steps, WORKERS)
    assert restarts == len(hit) == kills
    assert got == wanted
    assert all(torch.equal(other, weights[name]) for name, other in others.items())
