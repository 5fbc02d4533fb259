"""Packed rows of several sources, also of several kinds: how `mix` joins them."""

from collections.abc import Sequence
from typing import Any

from maskstream.pipelines.stream.row_mix import RowMix, RowPart
from maskstream.pipelines.stream.sampler import BatchSource
from maskstream.pipelines.stream.weights import MixOptions, Weight

from .sampler import PackedSampler


def join_rows(
    sources: Sequence[BatchSource[Any, Any, Any, Any]], weights: Sequence[Weight], seed: int, options: MixOptions
) -> tuple[PackedSampler, RowMix]:
    """The samples of several sources in the same rows. ValueError for sources that are mixtures themselves."""
    samplers = [source.sampler for source in sources if isinstance(source.sampler, PackedSampler)]
    if len(samplers) < len(sources) or any(len(one.natives) > 1 for one in samplers):
        raise ValueError("packed rows are mixed of sources of one split each, such as packed_loader(FOLDER)")
    most = options.get("epochs") or [None] * len(sources)
    if len(most) != len(sources):
        raise ValueError(f"epochs={tuple(most)}: give one for each of {len(sources)} sources, None for any number")
    samples = RowMix(
        parts=tuple(
            RowPart(split=one.samples.split, sizer=one.natives[0], weight=weight, epochs=limit)
            for one, weight, limit in zip(samplers, weights, most, strict=True)
        ),
        room=samplers[0].samples.room,
        unit=options.get("unit", "samples"),
        balance=samplers[0].samples.balance,
        seed=seed,
        length=options.get("batches"),
    )
    return PackedSampler(natives=tuple(one.natives[0] for one in samplers), samples=samples), samples
