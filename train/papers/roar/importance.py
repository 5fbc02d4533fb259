"""How important each token of a text is to a classifier, by the measures that Recursive ROAR compares.

Gradients are those of the logit of the true label, since tokens that speak for a wrong class would, once hidden, help
the model. Source: Madsen et al. (2022), sec. 3 and their code. Shapes: B rows of L tokens, D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.pipelines.stream.rng import sample_rng

from .model import TextClassifier

Float32s = npt.NDArray[np.float32]
RANDOM, CONTROL = "random", "random again"
"""Random scores, the baseline, and others of the same kind, whose curve shows how far chance alone goes."""


def gradient(model: TextClassifier, batch: TextBatch, points: int) -> Tensor:
    """The L2 norm of the gradient by the one-hot id of a token: |dy/dx E^T| for the table E of all ids; (B, L)."""
    vectors = model.vectors(batch).detach()
    by_vector = _gradients(model, batch, vectors)
    ids = torch.arange(model.vocabulary, device=vectors.device)
    table = model.table(ids[None])[0].detach()
    product = table.T @ table  # |g E^T|^2 = g (E^T E) g^T, without a matrix over all ids
    return torch.einsum("bld,de,ble->bl", by_vector, product, by_vector).clamp_min(0).sqrt()


def input_x_gradient(model: TextClassifier, batch: TextBatch, points: int) -> Tensor:
    """The size of the product of a token's vector with the gradient by it: |x dy/dx|; (B, L)."""
    vectors = model.vectors(batch).detach()
    return (vectors * _gradients(model, batch, vectors)).sum(dim=-1).abs()


def integrated_gradients(model: TextClassifier, batch: TextBatch, points: int) -> Tensor:
    """The same with the mean gradient at `points` points on the way from vectors of zeros to the vectors; (B, L).

    Source: Sundararajan et al. (2017), by the right Riemann sum. Without their size, the values of a row add up to what
    the logit gains over vectors of zeros, the better the more points.
    """
    return integrate_gradients(model, batch, points).abs()


def integrate_gradients(model: TextClassifier, batch: TextBatch, points: int) -> Tensor:
    """Integrated gradients with their signs: (B, L)."""
    vectors = model.vectors(batch).detach()
    total = torch.zeros_like(vectors)
    for point in range(1, points + 1):
        total += _gradients(model, batch, vectors * (point / points))
    return (vectors * total / points).sum(dim=-1)


def attention(model: TextClassifier, batch: TextBatch, points: int) -> Tensor:
    """The weights of attention (B, L). ValueError for a model that has no single attention."""
    with torch.no_grad():
        found = model.read(model.vectors(batch), batch).attention
    if found is None:
        raise ValueError(
            f"a {type(model).__name__} has no single attention over tokens; leave the measure attention out, or take a "
            "model with it, such as that of roar-lstm-tiny"
        )
    return found


MEASURES: Mapping[str, Callable[[TextClassifier, TextBatch, int], Tensor]] = {
    "gradient": gradient,
    "input-x-gradient": input_x_gradient,
    "integrated-gradients": integrated_gradients,
    "attention": attention,
}
"""The measures that look at a model, by name."""


def measure_importance(
    model: TextClassifier, batch: TextBatch, measure: str, *, seed: int, points: int
) -> list[Float32s]:
    """The importance of each row's tokens without special ones, float32 (tokens,); +inf for those that are hidden.

    measure: of MEASURES, RANDOM or CONTROL, whose scores are a function of the seed and the sample's key. points: those
    of integrated gradients.
    """
    found = None if measure in (RANDOM, CONTROL) else MEASURES[measure](model, batch, points).float().cpu().numpy()
    words, rows = batch.words.cpu().numpy(), []
    hidden = None if batch.mask is None else batch.mask.masked.cpu().numpy()
    for row, key in enumerate(batch.key):
        real = np.flatnonzero(words[row] >= 0)
        if found is None:
            own = sample_rng(seed, 0, key, 0, f"importance {measure}").random(len(real), np.float32)
        else:
            own = found[row, real]
        rows.append(own if hidden is None else np.where(hidden[row, real], np.float32(np.inf), own))
    return rows


def _gradients(model: TextClassifier, batch: TextBatch, vectors: Tensor) -> Tensor:
    """The gradient of the logit of each row's label by its vectors: (B, L, D)."""
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        if vectors.is_cuda:  # cuDNN's LSTM has no gradient outside training
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        asked = vectors.requires_grad_()
        scores = model.read(asked, batch).scores
        (found,) = torch.autograd.grad(scores.gather(1, batch.label.clamp_min(0)[:, None]).sum(), asked)
    vectors.requires_grad_(False)
    return found
