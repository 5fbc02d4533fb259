"""Futures of clips and losses of hidden ids, against what is computed by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.train import load_model, read_metrics, train
from maskstream.train.papers.maskvit.evaluate import (
    Futures,
    count_ids,
    find_last_seen,
    generate_futures,
    measure_hidden_ids,
)

from ...pipelines.every_modality import write_split
from ..test_every_recipe import CUTS
from .test_maskvit import clips, exact


def test_the_id_last_seen_is_that_of_the_nearest_earlier_frame_that_shows_the_place():
    rng = np.random.default_rng(0)
    ids, hidden = rng.integers(0, 9, (2, 5, 2, 3)), rng.random((2, 5, 2, 3)) < 0.6
    hidden[:, 0] = False
    found = find_last_seen(torch.from_numpy(ids).flatten(1), torch.from_numpy(hidden).flatten(1), (5, 2, 3))
    for b, t, y, x in np.ndindex(ids.shape):
        earlier = [s for s in range(t) if not hidden[b, s, y, x]] or [0]
        assert found.view(2, 5, 2, 3)[b, t, y, x] == ids[b, earlier[-1], y, x]


def test_losses_are_those_of_hidden_ids_alone():
    model, batch = exact(), clips(8)
    ids, hidden = model.ids(batch), batch.mask.masked
    counts = count_ids(model, [batch, batch])
    assert counts.single.sum() == 2 * hidden.sum() + 32
    assert counts.pairs.sum() == 2 * hidden.sum()
    found = measure_hidden_ids(model, [batch], counts)
    logits = model.predicted(ids, hidden, torch.arange(48).expand(8, -1))[hidden].float()
    assert found.ids == int(hidden.sum())
    assert found.model == pytest.approx(F.cross_entropy(logits, ids[hidden]).item(), rel=1e-6)
    assert found.right == pytest.approx((logits.argmax(dim=1) == ids[hidden]).float().mean().item())
    same = find_last_seen(ids, hidden, (3, 4, 4)) == ids
    assert found.copied == pytest.approx(same[hidden].float().mean().item())
    shares = torch.bincount(ids[hidden].repeat(2), minlength=32) + 1.0
    assert found.alone == pytest.approx(-(shares / shares.sum()).log()[ids[hidden]].mean().item(), rel=1e-5)
    assert found.beside < found.alone  # these very pairs were counted
    assert abs(found.model - math.log(32)) < 0.5
    with pytest.raises(ValueError, match="got none"):
        measure_hidden_ids(model, [], counts)


def test_a_model_that_knows_the_ids_generates_the_real_future(monkeypatch):
    model, batch = exact(), clips()
    true = model.ids(batch)

    def certain(ids, hidden, m):
        assert torch.equal(ids[~hidden], true[~hidden])
        return 100.0 * F.one_hot(true[hidden].view(len(ids), m), 32)

    monkeypatch.setattr(model, "predict", certain)
    found = generate_futures(model, [batch], rounds=4, temperature=0.0)
    assert torch.equal(found.generated, found.drawn)
    errors = found.errors()
    assert errors["generated"] == errors["the real frames, drawn from their ids"] > 0


def test_a_seed_decides_the_future_and_the_context_stays():
    model, batch = exact(), clips()
    first, again, other = (generate_futures(model, [batch], rounds=3, seed=seed).generated for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first[:, 0], other[:, 0])


def test_errors_are_of_the_frames_after_the_context_in_levels():
    real = torch.zeros(1, 3, 2, 2, 3, dtype=torch.uint8)
    real[:, 1], real[:, 2] = 30, 40
    made = torch.full_like(real, 10)
    errors = Futures(real=real, generated=made, drawn=made + 5, context=1).errors()
    assert errors == {
        "generated": pytest.approx(math.sqrt((20**2 + 30**2) / 2)),
        "the last frame, repeated": pytest.approx(math.sqrt((30**2 + 40**2) / 2)),
        "the last frame drawn from its ids, repeated": pytest.approx(math.sqrt((15**2 + 25**2) / 2)),
        "the real frames, drawn from their ids": pytest.approx(math.sqrt((15**2 + 25**2) / 2)),
    }


def test_a_run_is_reported_and_its_futures_are_generated(tmp_path):
    split = write_split("video", tmp_path / "data")
    run = tmp_path / "run"
    train("maskvit-tiny", split, run, steps=2, set=CUTS["maskvit"], device="cpu", progress=False)
    assert len(read_metrics(run / "metrics.jsonl")) == 2
    assert load_model(run / "model.safetensors").config.vq is None
    for words, more in ((["report"], ["--same-split"]), (["paper", "maskvit"], ["--count", "2", "--rounds", "2"])):
        out = tmp_path / f"{words[0]}.html"
        result = CliRunner().invoke(app, [*words, str(run), "--data", str(split), "--out", str(out), *more])
        assert result.exit_code == 0, f"{result.output} {result.exception}"
        page = out.read_text()
        assert all(row in page for row in ("Decoded from its ids", "Generated", "The last frame, repeated"))
    assert "counts after the id last seen at the place" in (tmp_path / "report.html").read_text()
