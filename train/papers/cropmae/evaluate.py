"""Evaluates models of two views: the loss on the hidden patches of the second, compared with two baselines."""

import torch

from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.shards.format.manifest import Manifest
from maskstream.train.core.model import squared
from maskstream.train.evaluate.evaluation import NORMALISED, Compared, Evaluation, Mixture, Score, read_batches
from maskstream.train.nn.grid import gather_tokens

from .model import CropPairConfig, CropPairModel, CrossAutoencoder, FramePairConfig

READING = (
    "A second view of a held-out sample, the patches that the encoder saw, and these patches with the model's "
    "predictions of the others, for which it also saw the whole first view. " + NORMALISED
)
FIRST = "a copy of the same place in the first view"
MEASURED = 256
"""The largest number of samples that are measured."""
LEAST = 24
"""Minimum number of measured samples: for a small split, additional views of its samples."""
_AT_ONCE = 16


@torch.inference_mode()
def evaluate(model: CrossAutoencoder[BatchT], config: DataConfig[BatchT], data: Manifest, shown: int) -> Evaluation:
    """Measure the loss on shuffled samples with the recipe's random views; repeated calls use the same ones.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of reconstructions to show.
    """
    n = min(len(data), MEASURED)
    size = min(n, _AT_ONCE)
    samples, rounds = n // size * size, -(-LEAST // n)
    sums = torch.zeros(4)
    count = 0.0
    for batch in read_batches(config, data, size=size, samples=samples, shuffle=True, rounds=rounds):
        pair = model.pair(batch)
        true = model.tokens.targets(gather_tokens(model.tokens.split(pair.second), pair.target))
        copied = model.tokens.targets(gather_tokens(model.tokens.split(pair.first), pair.target))
        made = model.predict(pair)
        for i, (one, other) in enumerate(
            ((made, true), (torch.zeros_like(true), true), (copied, true), (made, copied))
        ):
            sums[i] += squared(one, other, pair.weight).total
        count += float(pair.weight.sum())
    own, mean, first, apart = (sums / count).tolist()
    some = next(iter(read_batches(config, data, size=shown, samples=shown, shuffle=True)))
    step = 2 if isinstance(model, CropPairModel) else 1
    return Evaluation(
        scores=(
            Score(
                name="squared error of a normalised patch",
                value=own,
                count=samples * rounds,
                baselines={"every patch's mean": mean, FIRST: first},
            ),
        ),
        notes=Mixture.combine_squares(own, first, apart).notes(FIRST),
        examples=(
            Compared(
                title="Reconstructions",
                reading=READING,
                batch=some,
                made=model.reconstructed(some),
                rows=range(step - 1, step * shown, step),
            ),
        ),
    )


EVALUATIONS = {CropPairConfig: evaluate, FramePairConfig: evaluate}
