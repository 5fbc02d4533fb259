"""Readers that know nothing of maskstream open the shards: GNU tar, webdataset, DALI with our index."""

from __future__ import annotations

import gc
import subprocess
from pathlib import Path

import numpy as np
import pytest

from maskstream.shards.format.sample import Sample


def test_gnu_tar_lists_the_members(split: Path, samples: list[Sample]) -> None:
    listed = subprocess.run(["tar", "-tf", split / "toy-000000.tar"], check=True, capture_output=True, text=True)
    assert listed.stdout.split() == [f"{s.key}.{name}" for s in samples[:3] for name in ("mp4", "json")]
    assert listed.stderr == ""


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves the closing of files to the collector
def test_webdataset_reads_every_sample(split: Path, samples: list[Sample]) -> None:
    import webdataset

    urls = sorted(map(str, split.glob("*.tar")))
    read = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in read] == [sample.key for sample in samples]
    gc.collect()
    for theirs, ours in zip(read, samples, strict=True):
        assert {name: theirs[name] for name in ours.members} == {n: m.data for n, m in ours.members.items()}


def test_dali_reads_every_sample_through_our_index(split: Path, samples: list[Sample]) -> None:
    pytest.importorskip("nvidia.dali")
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import Pipeline

    tars = sorted(split.glob("*.tar"))
    pipeline = Pipeline(batch_size=len(samples), num_threads=1, device_id=None)
    with pipeline:
        outputs = fn.readers.webdataset(
            paths=[str(tar) for tar in tars],
            index_paths=[str(tar.with_suffix(".idx")) for tar in tars],
            ext=["mp4", "json"],
            dtypes=[types.UINT8, types.UINT8],
            name="reader",
            missing_component_behavior="error",
        )
        pipeline.set_outputs(*outputs)
    pipeline.build()
    assert pipeline.reader_meta("reader")["epoch_size"] == len(samples)
    for output, name in zip(pipeline.run(), ("mp4", "json"), strict=True):
        for i, sample in enumerate(samples):
            assert np.asarray(output.at(i)).tobytes() == sample.members[name].data
