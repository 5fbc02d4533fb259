"""Packed rows of several sources, also of several kinds: `mix` for what shares rows."""

from collections.abc import Sequence

from maskstream.pipelines.stream.mix import Weight
from maskstream.pipelines.stream.row_mix import RowMix, RowPart, Unit
from maskstream.pipelines.stream.sampler import BatchSource, Unchanged, check_alike, check_source
from maskstream.shards.format.manifest import join_label_names

from .batch import PackedBatch
from .sampler import PackedSampler, RowDraft, RowRequest

PackedSource = BatchSource[RowRequest, RowDraft, PackedBatch, PackedBatch]


def mix_rows(
    parts: Sequence[tuple[PackedSource, Weight]],
    *,
    unit: Unit = "samples",
    seed: int = 0,
    batches: int | None = None,
    epochs: Sequence[float | None] | None = None,
) -> PackedSource:
    """A source of rows that several sources of packed rows share: `Loader(mix_rows([(pictures, 3), (clips, 1)]))`.

    Weights and labels are those of `mix`. unit: what weights are shares of, "samples" or visible "tokens". batches: the
    length of an epoch; by default as many as all samples of all parts fill at the start of the run. epochs: the most
    epochs of each source, None for any number.

    Errors: ValueError for weights and epochs that are not legal, for sources that are no packed rows or are mixtures
    themselves, whose rows or tokens differ, and that are no endless stream (shuffle=False or lanes > 1).
    """
    if not parts:
        raise ValueError("mix_rows() of nothing: pass at least one (source, weight) pair")
    most = [None] * len(parts) if epochs is None else list(epochs)
    if len(most) != len(parts):
        raise ValueError(f"epochs={tuple(most)}: give one for each of {len(parts)} sources, None for any number")
    samplers = []
    for source, _ in parts:
        check_source(source, "mix_rows() takes")
        sampler = source.sampler
        if not isinstance(sampler, PackedSampler) or len(sampler.natives) != 1:
            raise ValueError("mix_rows() takes sources of packed rows of one split each, PackedData(...).source(split)")
        samplers.append(sampler)
    check_alike([source.form for source, _ in parts])
    samples = RowMix(
        parts=tuple(
            RowPart(split=sampler.samples.split, sizer=sampler.natives[0], weight=weight, epochs=limit)
            for sampler, (_, weight), limit in zip(samplers, parts, most, strict=True)
        ),
        room=samplers[0].samples.room,
        unit=unit,
        balance=samplers[0].samples.balance,
        seed=seed,
        length=batches,
    )
    sampler = PackedSampler(natives=tuple(sampler.natives[0] for sampler in samplers), samples=samples)
    return BatchSource(
        sampler=sampler.with_labels(join_label_names(sampler.splits)),
        finish=Unchanged(),
        samples=samples,
        identity={"sources": [source.identity for source, _ in parts]},
        form=parts[0][0].form,
    )
