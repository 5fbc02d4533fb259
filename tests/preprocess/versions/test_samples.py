"""The table of samples, against sets of numbers."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskstream.preprocess.versions.samples import Kept, SampleTable, publish_samples
from maskstream.shards.format.dataset import read_description
from maskstream.shards.format.rejects import read_curated, read_removed, read_selected
from maskstream.shards.stores.output import open_output

from .small_splits import written

NUMBERS = st.sets(st.integers(0, 5))


@given(st.lists(st.tuples(st.sampled_from(Kept), NUMBERS)))
def test_marks_count_by_the_largest_reason_in_any_order(marks: list[tuple[Kept, set[int]]]) -> None:
    samples = SampleTable(kept=np.zeros(6, np.uint8))
    for why, numbers in marks:
        samples = samples.mark(np.array([*numbers], np.int64), why)
    named = {kind: {n for why, numbers in marks if why == kind for n in numbers} for kind in Kept}
    away, removed = named[Kept.ELSEWHERE], named[Kept.REMOVED] - named[Kept.ELSEWHERE]
    assert {*samples.own.tolist()} == {*range(6)} - away
    assert {*samples.find(Kept.REMOVED).tolist()} == removed
    assert {*samples.removed.tolist()} == removed | named[Kept.CURATED] - away


@pytest.mark.parametrize("kept", [[0, 1, 2, 0, 1, 0], [3, 1, 2, 0, 3, 0], [3, 0, 0, 0, 3, 0], [0, 0, 0, 0, 0, 0]])
def test_a_published_table_reads_back(tmp_path: Path, kept: list[int]) -> None:
    output = open_output(written(tmp_path / "train", 0))
    samples = SampleTable(kept=np.array(kept, np.uint8), divided=3 in kept)
    info = publish_samples(output, read_description(output.store), samples)
    found, selected = SampleTable.read(output.store, info), read_selected(output.store, info)
    assert found.kept.tolist() == kept
    assert found.divided == (3 in kept)
    assert read_removed(output.store, info).tolist() == [n for n, why in enumerate(kept) if why in (1, 2)]
    assert read_curated(output.store, info).tolist() == [n for n, why in enumerate(kept) if why == 1]
    assert (None if selected is None else selected.tolist()) == (
        [n for n, why in enumerate(kept) if why != 3] if 3 in kept else None
    )
