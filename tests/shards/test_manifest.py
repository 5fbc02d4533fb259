"""What is written comes back from the manifest, as arrays; what is damaged says so."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np

from maskstream.shards.manifest import Manifest
from maskstream.shards.sample import Sample
from maskstream.shards.writer import ShardRecord


def test_round_trip(samples: list[Sample], make_split: Callable[..., list[ShardRecord]], tmp_path: Path) -> None:
    records = make_split()
    manifest = Manifest.load(tmp_path)
    rows = [(number, row) for number, record in enumerate(records) for row in record.rows]
    assert len(manifest) == len(samples) == len(rows)
    assert manifest.shard_names == [record.name for record in records]
    assert manifest.component_names == ["json", "mp4"]
    assert manifest.video_component == "mp4"
    assert manifest.sources().to_pylist() == [sample.source for sample in samples]
    assert manifest.keys(np.array([5, 0])) == [samples[5].key, samples[0].key]
    for i, (number, row) in enumerate(rows):
        assert (manifest.key(i), manifest.label[i], manifest.shard[i]) == (row.key, row.label, number)
        data = manifest.shard_path(i).read_bytes()
        for name, (offset, size, digest) in row.components.items():
            component = manifest.component(name)
            assert (component.offset[i], component.size[i], component.digest[i].tobytes()) == (offset, size, digest)
            assert data[offset : offset + size] == samples[i].components[name]
        assert row.video is not None
        video = manifest.video(i)
        for field in ("codec", "fps", "n_frames", "width", "height", "header_size"):
            assert getattr(video, field) == getattr(row.video, field)
        for field in ("first_frame", "offset", "size", "lead"):
            assert getattr(video, field).dtype == np.int64
            np.testing.assert_array_equal(getattr(video, field), getattr(row.video, field))
        assert manifest.n_frames[i] == row.video.n_frames


def test_pickles_as_its_folder(split: Path) -> None:
    manifest = Manifest.load(split)
    data = pickle.dumps(manifest)
    assert len(data) < 400
    copy = pickle.loads(data)
    assert copy.fingerprint == manifest.fingerprint
    assert copy.keys(range(len(copy))) == manifest.keys(range(len(manifest)))
