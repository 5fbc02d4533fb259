"""Activations that become neurons, spikes that a sample drops alike everywhere, and the transformer made of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from maskstream.modalities import MODALITIES
from maskstream.pages.report.drawn import make_sections
from maskstream.pipelines.masks import Cues, Draw, TokenGrid
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.stream.rng import Place
from maskstream.shards.format.manifest import Manifest
from maskstream.train.core.process import seeded
from maskstream.train.evaluate_run import evaluate_model
from maskstream.train.papers.spiking_mst.evaluate import ADDITION_PJ, MULTIPLICATION_PJ, measure_spiking
from maskstream.train.papers.spiking_mst.model import (
    THRESHOLD,
    Qcfs,
    Spikes,
    SpikingSimulation,
    SpikingTransformerConfig,
    _mix_bits,
)
from maskstream.train.papers.spiking_mst.recipe import spiking_mst_tiny

from ..labelled_pictures import write_split

GRID = {"image": TokenGrid(axes=("h", "w"), shape=(4, 4), patch=(4, 4))}
SMALL = SpikingTransformerConfig(
    width=16, depths=(2, 1), heads=(2, 2), window=2, levels=4, labels=3, spikes=Spikes(ratio=0.0)
)


def seeds(count: int, view: int = 0) -> torch.Tensor:
    return Spikes().seeds([Draw.of(0, 0, f"s{i}", view, Place(), Cues()) for i in range(count)])


def test_a_sample_drops_the_same_elements_in_every_batch() -> None:
    spikes, numbers = Spikes(), seeds(5)
    keep = spikes.keep(numbers, (3, 49, 32))
    assert keep.shape == (5, 3, 49, 32)
    assert keep.dtype == torch.bool
    assert torch.equal(keep[[3, 1]], spikes.keep(numbers[[3, 1]], (3, 49, 32)))
    assert torch.equal(numbers, seeds(5))
    others = [seeds(5, view=1), numbers.roll(1)]
    assert all(0.3 < float((spikes.keep(o, (3, 49, 32)) == keep).double().mean()) < 0.7 for o in others)
    assert not torch.equal(spikes.keep(numbers, (3, 49, 32), site=1), keep)


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.75, 1.0])
def test_elements_are_fair_and_independent(ratio: float) -> None:
    keep = torch.stack([Spikes(ratio=ratio).keep(seeds(64), (500,), site=s) for s in (0, 1, 5)]).double()
    if ratio in (0.0, 1.0):
        assert (keep == 1 - ratio).all()
        return
    z = (keep - (1 - ratio)) / np.sqrt(ratio * (1 - ratio))
    assert abs(float(z.mean())) * np.sqrt(z.numel()) < 4.5
    for axis in (0, 1, 2):
        n = z.numel() / z.shape[axis]
        means = z.mean(dim=[a for a in (0, 1, 2) if a != axis]) * np.sqrt(n)
        assert float(means.abs().max()) < 4.8
        neighbours = (z * z.roll(1, axis)).mean()
        assert abs(float(neighbours)) * np.sqrt(z.numel()) < 4.5


def test_the_mixing_is_splitmix64s() -> None:
    def published(x: int) -> int:
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    numbers = [0, 1, 2, 12345678901234567, 2**62 + 3, 2**63 - 1]
    got = _mix_bits(torch.tensor([*numbers, -1, -(2**63)]))
    assert [g % 2**64 for g in got.tolist()] == [published(x % 2**64) for x in [*numbers, -1, -(2**63)]]


def test_ratios_outside_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ratio must be a number from 0 to 1, got 1\.5"):
        Spikes(ratio=1.5)


def built(ratio=0.0, **changed):
    model = replace(SMALL, spikes=Spikes(ratio=ratio), **changed).build(GRID, seed=0).eval()
    with seeded(1), torch.no_grad():  # larger than at the beginning, so that spikes reach the last layers
        for p in model.parameters():
            if p.ndim > 1:
                p.mul_(2.0)
    return model


def pictures(n=3, seed=0):
    with seeded(seed):
        image = torch.randint(0, 256, (n, 16, 16, 3), dtype=torch.uint8)
    return ImageBatch(image=image, mask=None, label=torch.arange(n) % 3, key=[f"k{i}" for i in range(n)])


@pytest.mark.parametrize("levels", [1, 4, 7])
def test_a_neuron_fires_on_average_what_its_activation_says(levels):
    unit = Qcfs(levels)
    x = torch.linspace(-1, 2 * THRESHOLD, 301)[None] + 1e-4
    run, spikes = SpikingSimulation(), torch.zeros_like(x)
    for _ in range(levels):
        run.tick()
        spikes += run.fire(unit, x, "x").detach()
    torch.testing.assert_close(spikes / levels, unit(x).detach())
    assert len(unit(x).unique()) == levels + 1
    assert run.spikes["x"] == pytest.approx(float(spikes.sum()) / THRESHOLD)


def test_the_gradient_passes_between_zero_and_the_threshold():
    x = torch.tensor([-0.5, 0.3, 1.7, 5.0], requires_grad=True)
    Qcfs(8)(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]


def test_gradients_are_those_of_a_floor_that_lets_them_through():
    unit, x = Qcfs(5), (torch.linspace(-1, 3, 81) + 1e-3).requires_grad_()
    weight = torch.linspace(1, 2, 81)
    (unit(x) * weight).sum().backward()
    own, threshold = x.detach().clone().requires_grad_(), torch.tensor(THRESHOLD, requires_grad=True)
    level = own / threshold * 5 + 0.5
    floored = (level + (level.floor() - level).detach()) / 5
    inside = (floored >= 0) & (floored <= 1)  # with its bounds, which clamp passes or not by the version of torch
    clipped = torch.where(inside, floored, (floored > 1).float()) * threshold
    (clipped * weight).sum().backward()
    torch.testing.assert_close(unit(x), clipped)
    torch.testing.assert_close(x.grad, own.grad)
    torch.testing.assert_close(unit.threshold.grad[0], threshold.grad)


def test_places_tell_patches_apart():
    batch = pictures()
    left = replace(batch, image=torch.cat([batch.image[:, :, 8:], batch.image[:, :, :8]], dim=2))
    plain, placed = (built(depths=(1,), heads=(2,), window=4, places=places) for places in (False, True))
    with torch.no_grad():
        torch.testing.assert_close(plain.scores(left), plain.scores(batch))
        assert (placed.scores(left) - placed.scores(batch)).abs().max() > 1e-3


def test_the_work_without_spikes_is_that_of_the_flop_counter():
    model, batch = built(), pictures()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.scores(batch)
    head = len(batch) * model.head.in_features * model.head.out_features
    _, run = model.simulated(batch, 2)
    assert run.dense / 2 + model.count_embedding_work(len(batch)) + head == counter.get_total_flops() / 2
    assert 0 < run.additions[0] < run.additions[1] < run.dense


def test_more_steps_come_closer_to_the_activations():
    model, batch = built(depths=(1,), heads=(2,), levels=16), pictures(8)
    with torch.no_grad():
        own = model.scores(batch)
        found, _ = model.simulated(batch, 64)
    far = [float((one - own).abs().mean()) for one in found]
    assert far[63] < 0.5 * far[0]


def test_dropped_spikes_are_the_samples_own_and_save_additions():
    whole, masked, batch = built(), built(0.75), pictures()
    with torch.no_grad():
        alone = masked.scores(replace(batch, image=batch.image[1:2], label=batch.label[1:2], key=batch.key[1:2]))
        torch.testing.assert_close(masked.scores(batch)[1:2], alone)
        torch.testing.assert_close(masked.scores(batch), masked.scores(batch))
        assert not torch.equal(masked.scores(batch), whole.scores(batch))
        every, fewer, none = (model.simulated(batch, 4)[1] for model in (whole, masked, built(1.0)))
    met = [run.additions_of["scores"] for run in (every, fewer, none)]
    assert 0 == met[2] < met[1] < 0.25 * met[0]
    assert fewer.dense == every.dense
    assert sum(every.additions_of.values()) == every.additions[-1]


def test_energy_is_additions_and_multiplications():
    found = measure_spiking(built(), [pictures(), pictures(3, seed=1)], 4)
    assert found.images == 6
    assert found.ann_nj == pytest.approx(found.multiplied * MULTIPLICATION_PJ / 1000)
    assert found.estimate_snn_nj(4) == pytest.approx(
        (found.first * MULTIPLICATION_PJ + found.added[3] * ADDITION_PJ) / 1000
    )
    assert all(0 <= rate <= 1 for rate in found.rates.values())
    unlabelled = replace(pictures(), label=torch.full((3,), -1))
    with pytest.raises(ValueError, match="one label each"):
        measure_spiking(built(), [unlabelled])


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="too small for another stage"):
        replace(SMALL, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1), window=1).build(GRID)
    with pytest.raises(ValueError, match="does not divide"):
        replace(SMALL, window=3).build(GRID)
    with pytest.raises(ValueError, match="heads must divide"):
        replace(SMALL, heads=(3, 3))


def test_a_report_shows_the_spikes(tmp_path):
    split = write_split(tmp_path, 12, 0)
    tiny = spiking_mst_tiny()
    recipe = replace(tiny, data=replace(tiny.data, size=16), model=replace(SMALL, depths=(1,), heads=(2,)))
    found = evaluate_model(recipe, recipe.build().eval(), Manifest.load(split), 2)
    assert found.scores[0].baselines["the most frequent class"] == pytest.approx(4 / 11)
    assert {score.count for score in found.scores} == {11}
    (section,) = make_sections(found.examples, MODALITIES["image"].figures(recipe.data, Manifest.load(split)), ())
    assert [len(card.figures[-1].items) for card in section.cards] == [5, 5]
    assert "nJ" in section.cards[0].facts[0].items[0].value


def test_a_split_without_labels_is_refused(tmp_path):
    split = Manifest.load(write_split(tmp_path, 3, 0))
    without = replace(split, label=np.full(len(split), -1))
    with pytest.raises(ValueError, match=r"no sample of .*/split has a label, but spiking-mst-tiny learns labels"):
        spiking_mst_tiny().loader(without)
