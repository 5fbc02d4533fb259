"""Mixing of packed rows from several sources, also of different kinds; called by `mix`."""

from collections.abc import Sequence
from typing import Any

from maskstream.pipelines.stream.row_mix import RowMix
from maskstream.pipelines.stream.sampler import BatchSource
from maskstream.pipelines.stream.weights import MixOptions, Weight

from .sampler import PackedSampler


def join_rows(
    sources: Sequence[BatchSource[Any, Any, Any, Any]], weights: Sequence[Weight], seed: int, options: MixOptions
) -> tuple[PackedSampler, RowMix]:
    """Mix the samples of several sources within rows.

    Raises:
        ValueError: A source is itself a mixture.
    """
    samplers = [source.sampler for source in sources if isinstance(source.sampler, PackedSampler)]
    if len(samplers) < len(sources) or any(len(one.natives) > 1 for one in samplers):
        raise ValueError("a mixture of packed rows needs sources with one split each, such as packed_loader(FOLDER)")
    first = samplers[0].samples
    natives = tuple(one.natives[0] for one in samplers)
    samples = RowMix(
        parts=tuple(one.samples.split for one in samplers),
        weights=tuple(weights),
        sizers=natives,
        room=first.room,
        unit=options.unit,
        balance=first.balance,
        seed=seed,
        length=options.batches,
        epochs=None if options.epochs is None else tuple(options.epochs),
    )
    return PackedSampler(natives=natives, samples=samples), samples
