"""Measures of collapse: how much the features of different samples differ, and in how many directions.

An encoder has collapsed if its features are the same for every sample, or vary along a single direction; its loss may
still be low. All measures take features float (n, D) of n samples and do not depend on their scale.
"""

import torch
from torch import Tensor

TINY = 1e-12


def measure_spread(features: Tensor) -> dict[str, float]:
    """Measure how features (n, D) are spread over samples.

    Args:
        features: Features float (n, D).

    Returns:
        "variance" is the fraction of the features' mean square that varies between samples, in [0, 1]. "effective rank"
            is described at its function (Roy and Vetterli, 2007). "rank me" is the same measure on the singular values
            of the uncentred features (RankMe; Garrido et al., 2023). "covariance" is the mean squared correlation of
            two channels, in [0, 1]; 1 if all channels are the same.

    Raises:
        ValueError: There are fewer than two samples or channels.
    """
    if features.ndim != 2 or min(features.shape) < 2:
        raise ValueError(f"the spread needs features (n, D) of at least two samples, got {tuple(features.shape)}")
    x = features.detach().double()
    centred = x - x.mean(dim=0)
    square = x.square().sum()
    deviation = centred.square().sum(dim=0).sqrt()
    moving = deviation > TINY * (1 + x.abs().amax())
    found = centred[:, moving] / deviation[moving]
    channels = found.shape[1]
    alike = (found.T @ found).square().sum() - channels
    return {
        "variance": float(centred.square().sum() / square.clamp_min(TINY)),
        "effective rank": effective_rank(x),
        "rank me": _compute_exponential_entropy(torch.linalg.svdvals(x)),
        "covariance": float(alike / (channels * (channels - 1))) if channels > 1 else 1.0,
    }


def effective_rank(x: Tensor) -> float:
    """Return the exponential of the entropy of the covariance's eigenvalues.

    Args:
        x: Features (n, D).

    Returns:
        A number from 1 to min(n - 1, D).
    """
    centred = x.detach().double() - x.detach().double().mean(dim=0)
    gram = centred @ centred.T if len(x) < x.shape[1] else centred.T @ centred
    return _compute_exponential_entropy(torch.linalg.eigvalsh(gram).clamp_min(0))


def lidar(x: Tensor, delta: float = 1e-4) -> float:
    """Compute LiDAR (Thilak et al., 2023, section 4) of q views of n samples, float (n, q, D): 1 to min(n - 1, D).

    It estimates in how many directions samples differ by more than their views do. The space is first scaled so that
    the covariance of a sample's views is the identity. The measure is then the exponential of the entropy of the
    eigenvalues of the samples' covariance.

    The paper adds 1e-4 to features of any scale, and uses 1,000 samples of 50 views. With fewer rows than channels,
    some directions have no variance between views; in these, only the variance between samples counts.

    Args:
        x: Features.
        delta: Term added to the variance of the views in each direction, as a fraction of a channel's mean variance.
    """
    if x.ndim != 3 or min(x.shape) < 2:
        raise ValueError(f"LiDAR needs features (n, q, D) of two views of at least two samples, got {tuple(x.shape)}")
    x = x.detach().double()
    means = x.mean(dim=1)
    within, between = (x - means[:, None]).flatten(0, 1), means - means.mean(dim=0)
    views, samples = (one.T @ one / len(one) for one in (within, between))
    added = delta * (views + samples).diagonal().mean().clamp_min(TINY)
    values, directions = torch.linalg.eigh(views)
    whitened = between @ directions / (values.clamp_min(0) + added).sqrt()
    return _compute_exponential_entropy(torch.linalg.svdvals(whitened).square())


def _compute_exponential_entropy(values: Tensor) -> float:
    """Return the exponential of the entropy of nonnegative values, normalised to sum 1; 1 if all are 0."""
    return float(torch.special.entr(values / values.sum().clamp_min(TINY)).sum().exp())
