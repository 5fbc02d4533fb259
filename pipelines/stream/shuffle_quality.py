"""How well an order is shuffled: what is left in it of the order in which the samples are stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffleQuality:
    """Three views of an order of samples; a random permutation has the values that `of_a_permutation` gives.

    position_correlation: Pearson's, of a sample's number in the dataset and its place in the order: 1 for the order of
    the dataset, about 0 for a random one. same_shard_neighbours: the share of neighbours in the order that are of one
    shard, in [0, 1]. shards_per_batch: from how many shards the samples of a batch come, the mean over whole batches.
    """

    position_correlation: float
    same_shard_neighbours: float
    shards_per_batch: float


def shuffle_quality(
    indexes: npt.NDArray[np.int64], shard: npt.NDArray[np.integer], *, batch_size: int
) -> ShuffleQuality:
    """The quality of `indexes`, int64 (M,), an order of samples whose shards are `shard`, int (N,).

    ValueError where there are fewer than two samples, or not one batch.
    """
    if not 1 <= batch_size <= len(indexes) or len(indexes) < 2:
        raise ValueError(
            f"{len(indexes)} samples in batches of {batch_size}: at least two samples and one batch are needed"
        )
    of = shard[indexes]
    whole = np.sort(of[: len(of) // batch_size * batch_size].reshape(-1, batch_size), axis=1)
    varied = indexes.min() < indexes.max()
    return ShuffleQuality(
        position_correlation=float(np.corrcoef(np.arange(len(indexes)), indexes)[0, 1]) if varied else 0.0,
        same_shard_neighbours=float(np.mean(of[1:] == of[:-1])),
        shards_per_batch=float(np.mean(1 + (whole[:, 1:] != whole[:, :-1]).sum(axis=1))),
    )


def of_a_permutation(shard: npt.NDArray[np.integer], *, batch_size: int) -> ShuffleQuality:
    """What a random permutation of all samples is expected to have."""
    n = len(shard)
    sizes, shards = np.unique(np.bincount(shard), return_counts=True)
    # A batch misses a shard of s samples where each of its draws does: (n - s choose b) / (n choose b).
    draws = np.arange(batch_size, dtype=np.float64)
    misses = np.array([np.prod(np.clip((n - size - draws) / (n - draws), 0, None)) for size in sizes.tolist()])
    return ShuffleQuality(
        position_correlation=0.0,
        same_shard_neighbours=float((shards * sizes * (sizes - 1.0)).sum() / (n * (n - 1.0))),
        shards_per_batch=float((shards * (1 - misses)).sum()),
    )
