"""How well `block=` shuffles, for blocks of several sizes.

    python benchmarks/shuffle.py [--shards 10000] [--per-shard 100] [--batch 256]

The figures are computed from the loader's orders, without reading files. They are means over several epochs; of the
correlation, the mean of absolute values.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from maskstream.pipelines.stream.order import Order

EPOCHS = 3
BLOCKS = (1, 4, 16, 64, None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffleQuality:
    """Three measures of how well an order is shuffled; `expected_quality` returns them for a random permutation.

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


MEASURES = tuple(field.name for field in fields(ShuffleQuality))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--shards", type=int, default=10_000, help="shards of the dataset")
    parser.add_argument("--per-shard", type=int, default=100, help="samples per shard")
    parser.add_argument("--batch", type=int, default=256, help="samples per global batch")
    arguments = parser.parse_args()
    sizes = (arguments.per_shard,) * arguments.shards
    shard = np.repeat(np.arange(arguments.shards), arguments.per_shard)
    table = Table(title=f"{len(shard):,} samples in {len(sizes):,} shards, batches of {arguments.batch}")
    for name in ("block", *MEASURES):
        table.add_column(name.replace("_", " "), justify="right")
    ordered = shuffle_quality(np.arange(len(shard)), shard, batch_size=arguments.batch)
    table.add_row("not shuffled", *_cells(ordered))
    for block in BLOCKS:
        order = Order(shard_sizes=sizes, global_batch=arguments.batch, block=block)
        epochs = [shuffle_quality(order.epoch(e), shard, batch_size=arguments.batch) for e in range(EPOCHS)]
        means = {name: float(np.mean([abs(getattr(quality, name)) for quality in epochs])) for name in MEASURES}
        table.add_row("all" if block is None else str(block), *_cells(ShuffleQuality(**means)))
    table.add_row("a permutation", *_cells(expected_quality(shard, batch_size=arguments.batch)))
    Console().print(table)


def _cells(quality: ShuffleQuality) -> list[str]:
    return [
        f"{quality.position_correlation:.3f}",
        f"{quality.same_shard_neighbours:.4f}",
        f"{quality.shards_per_batch:.1f}",
    ]


if __name__ == "__main__":
    main()
