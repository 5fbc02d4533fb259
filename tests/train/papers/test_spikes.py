"""Spikes: a fair coin for every element, the same for a sample wherever and with whatever it is shown."""

import numpy as np
import pytest
import torch

from maskstream.pipelines.masks import Cues, Draw
from maskstream.pipelines.stream.place import Place
from maskstream.train.papers.spiking_mst.spikes import Spikes, _mixed


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
    got = _mixed(torch.tensor([*numbers, -1, -(2**63)]))
    assert [g % 2**64 for g in got.tolist()] == [published(x % 2**64) for x in [*numbers, -1, -(2**63)]]


def test_ratios_outside_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lies in \[0, 1\], got 1.5"):
        Spikes(ratio=1.5)
