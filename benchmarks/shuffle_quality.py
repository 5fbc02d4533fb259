"""Measures of how well an order is shuffled, compared with the order in which the samples are stored."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffleQuality:
    """Three measures of an order of samples; `expected_quality` gives those of a random permutation.

    position_correlation: Pearson's correlation of a sample's index and its position in the order: 1 for the stored
    order, about 0 for a random one. same_shard_neighbours: the fraction of neighbouring pairs that come from one shard.
    shards_per_batch: the number of shards that a batch draws from, averaged over full batches.
    """

    position_correlation: float
    same_shard_neighbours: float
    shards_per_batch: float


def shuffle_quality(
    indexes: npt.NDArray[np.int64], shard: npt.NDArray[np.integer], *, batch_size: int
) -> ShuffleQuality:
    """The quality of the order `indexes`, int64 (M,); `shard`, int (N,), is the shard of each sample.

    Raises ValueError for fewer than two samples, or fewer than one batch.
    """
    if not 1 <= batch_size <= len(indexes) or len(indexes) < 2:
        raise ValueError(
            f"at least two samples and one full batch are needed, got {len(indexes)} samples in batches of {batch_size}"
        )
    of = shard[indexes]
    whole = np.sort(of[: len(of) // batch_size * batch_size].reshape(-1, batch_size), axis=1)
    varied = indexes.min() < indexes.max()
    return ShuffleQuality(
        position_correlation=float(np.corrcoef(np.arange(len(indexes)), indexes)[0, 1]) if varied else 0.0,
        same_shard_neighbours=float(np.mean(of[1:] == of[:-1])),
        shards_per_batch=float(np.mean(1 + (whole[:, 1:] != whole[:, :-1]).sum(axis=1))),
    )


def expected_quality(shard: npt.NDArray[np.integer], *, batch_size: int) -> ShuffleQuality:
    """The expected quality of a random permutation of all samples."""
    n = len(shard)
    sizes, shards = np.unique(np.bincount(shard), return_counts=True)
    # The probability that a batch of b draws misses a shard of s samples: (n - s choose b) / (n choose b).
    draws = np.arange(batch_size, dtype=np.float64)
    misses = np.array([np.prod(np.clip((n - size - draws) / (n - draws), 0, None)) for size in sizes.tolist()])
    return ShuffleQuality(
        position_correlation=0.0,
        same_shard_neighbours=float((shards * sizes * (sizes - 1.0)).sum() / (n * (n - 1.0))),
        shards_per_batch=float((shards * (1 - misses)).sum()),
    )
