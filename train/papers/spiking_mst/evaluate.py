"""Evaluates a spiking transformer: accuracy over time steps, compared with its activations, and the cost of both.

Energy is the energy of additions and multiplications in 32-bit floats at 45 nm: 0.9 pJ for an addition, 4.6 pJ for a
multiplication with an addition (Horowitz, 2014, as used by papers on spiking networks). The spiking network adds once
for each spike and output; the first layer reads pixels instead of spikes, and multiplies once per image. Memory,
softmax, norms, biases and the head are not counted in either case.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.evaluation import (
    Evaluation,
    Score,
    ShownSamples,
    TrainingLoss,
    accuracy,
    centred,
    read_first,
    read_shuffled,
    trained_on,
)

from .model import SpikingTransformer, SpikingTransformerConfig

ADDITION_PJ, MULTIPLICATION_PJ = 0.9, 4.6
"""The energy of an addition, and of a multiplication with an addition, in pJ."""
STEPS = 16
"""The time steps of a simulation in a report."""
MEASURED, COUNTED = 1024, 1 << 14
"""Maximum number of images that are measured, and of images whose labels are counted for the baseline."""
_AT_ONCE = 64
SHOWN_KINDS, NEURONS = ("embedded", "q", "k", "scores", "hidden"), 48
"""Kinds of neurons to show, and number of neurons of each kind."""
READING = (
    "A held-out image, and spikes of the simulation: a row is a neuron, a column a time step, a mark a spike. There "
    f"are {NEURONS} neurons of each kind, spread evenly over the first block and the image. Energy counts only the "
    f"operations: {ADDITION_PJ} pJ for an addition, {MULTIPLICATION_PJ} pJ for a multiplication with an addition (45 "
    "nm, 32-bit floats)."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spiking:
    """Results of a model; operations are counted per image.

    Attributes:
        ratio: Fraction of dropped spikes.
        images: Number of images.
        ann: Accuracy of the activations.
        snn: Accuracy of the simulation after each time step.
        multiplied: Multiplications with additions of the network without spikes.
        first: Multiplications with additions of the first layer, which both have.
        added: Additions caused by spikes, after each time step.
        rates: Spikes per neuron and step, by kind of neuron.
    """

    ratio: float
    images: int
    ann: float
    snn: tuple[float, ...]
    multiplied: float
    first: float
    added: tuple[float, ...]
    rates: Mapping[str, float]

    @property
    def ann_nj(self) -> float:
        """The energy of an image without spikes, in nJ."""
        return self.multiplied * MULTIPLICATION_PJ / 1000

    def estimate_snn_nj(self, steps: int) -> float:
        """Return the energy of an image in `steps` time steps, in nJ."""
        return (self.first * MULTIPLICATION_PJ + self.added[steps - 1] * ADDITION_PJ) / 1000

    def scores(self, frequent: float) -> Iterator[Score]:
        """Yield the accuracy after several numbers of time steps, largest first, and without spikes; then the energies.

        `frequent` is the frequency of the most frequent class.
        """
        marks = [steps for steps in (2, 4, 8, 16, 32, 64) if steps < len(self.snn)] + [len(self.snn)]
        named = {f"of the spiking network in {steps} time steps": self.snn[steps - 1] for steps in reversed(marks)}
        for name, share in {**named, "of the activations": self.ann}.items():
            guesses = {"the most frequent class": frequent}
            yield Score.share(f"right classes {name}", share, "images", self.images, guesses)
        for steps in reversed(marks):
            yield Score(
                name=f"energy of an image in {steps} time steps",
                value=self.estimate_snn_nj(steps),
                unit="nJ",
                of="images",
                count=self.images,
                baselines={"the activations": self.ann_nj},
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Spiked(ShownSamples):
    """Images with the predicted classes and the spikes.

    Attributes:
        spikes: bool (B, neurons, steps) by kind of neuron.
        energy_nj: Energy of each image's spikes.
    """

    spikes: Mapping[str, Tensor]
    energy_nj: Sequence[float]


@torch.inference_mode()
def measure_spiking(model: SpikingTransformer, measured: Iterable[ImageBatch], steps: int = STEPS) -> Spiking:
    """Compare a model with its simulation on labelled images.

    Args:
        model: The model.
        measured: Batches of labelled images.
        steps: Number of time steps.

    Raises:
        ValueError: `measured` is empty.
    """
    own, labels = [], []
    after: list[list[Tensor]] = [[] for _ in range(steps)]
    added, dense, first = [0.0] * steps, 0.0, 0.0
    spikes: dict[str, float] = {}
    neurons: dict[str, int] = {}
    for batch in measured:
        own.append(model.scores(batch))
        labels.append(batch.label)
        found, run = model.simulated(batch, steps)
        for step, scores in enumerate(found):
            after[step].append(scores)
            added[step] += run.additions[step]
        dense += run.dense / steps
        first += model.count_embedding_work(len(batch))
        for kind, count in run.spikes.items():
            spikes[kind] = spikes.get(kind, 0.0) + count / steps
            neurons[kind] = neurons.get(kind, 0) + run.neurons[kind] * len(batch)
    label = torch.cat(labels) if labels else torch.zeros(0)
    if not len(label) or (label < 0).any():
        raise ValueError("a spiking network needs images with one label each; use a labelled split")
    n = len(label)
    return Spiking(
        ratio=model.config.spikes.ratio,
        images=n,
        ann=accuracy(torch.cat(own), label),
        snn=tuple(accuracy(torch.cat(scores), label) for scores in after),
        multiplied=(dense + first) / n,
        first=first / n,
        added=tuple(count / n for count in added),
        rates={kind: count / neurons[kind] for kind, count in spikes.items()},
    )


def yield_held_out_images(config: ImageData, data: Manifest, samples: int = MEASURED) -> Iterator[ImageBatch]:
    """Yield batches of shuffled labelled samples of a split, as centre crops; repeated calls yield the same batches.

    Args:
        config: Data config of the run.
        data: The split.
        samples: Largest number of samples to read.
    """
    for batch in read_shuffled(centred(config), data, most=samples, size=_AT_ONCE):
        rows = (batch.label >= 0).nonzero()[:, 0]
        keys = [batch.key[row] for row in rows.tolist()]
        if keys:
            yield ImageBatch(image=batch.image[rows], mask=None, label=batch.label[rows], key=keys)


def evaluate(model: SpikingTransformer, config: ImageData, data: Manifest, shown: int) -> Evaluation:
    """Measure the right classes on a held-out split, with and without spikes, compared with the most frequent class.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples to show.
    """
    found = measure_spiking(model, yield_held_out_images(config, data))
    known = torch.cat([batch.label for batch in yield_held_out_images(config, trained_on(data), COUNTED)])
    frequency = known.bincount(minlength=model.config.labels).double()
    labels = torch.cat([batch.label for batch in yield_held_out_images(config, data)])
    share = (frequency + 1) / (frequency + 1).sum()
    return Evaluation(
        scores=tuple(found.scores(float((labels == frequency.argmax()).double().mean()))),
        notes={
            "share of the spikes of queries, keys and attention maps that are dropped": found.ratio,
            "millions of multiplications with additions, of the activations": found.multiplied / 1e6,
            f"millions of additions in {STEPS} time steps": found.added[STEPS - 1] / 1e6,
        },
        examples=(_record_spikes(model, read_first(centred(config), data, shown)),),
        loss=TrainingLoss(
            name="The mean cross-entropy of the classes in nats",
            baseline="the frequencies of classes",
            value=float(-share[labels].log().mean()),
        ),
        learns="A spiking transformer learns the classes of images with activations that become spikes.",
    )


@torch.inference_mode()
def _record_spikes(model: SpikingTransformer, batch: ImageBatch) -> Spiked:
    """Record spikes of neurons spread evenly over the first block and the image, and the energy of each image."""
    spikes = {}
    for kind in SHOWN_KINDS:
        found, run = model.simulated(batch, STEPS, keeps=kind)
        per_step = len(run.kept) // STEPS
        every = torch.stack(run.kept[::per_step], dim=2)
        spikes[kind] = every[:, torch.linspace(0, every.shape[1] - 1, NEURONS).long()]
    energy = []
    for i in range(len(batch)):
        one = replace(batch, image=batch.image[i : i + 1], label=batch.label[i : i + 1], key=batch.key[i : i + 1])
        _, run = model.simulated(one, STEPS)
        energy.append((run.additions[-1] * ADDITION_PJ + model.count_embedding_work(1) * MULTIPLICATION_PJ) / 1000)
    return Spiked(
        title="Spikes",
        reading=READING,
        batch=batch,
        rows=range(len(batch)),
        answers=found[-1].argmax(dim=1).tolist(),
        spikes=spikes,
        energy_nj=energy,
    )


EVALUATIONS = {SpikingTransformerConfig: evaluate}
