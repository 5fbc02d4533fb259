"""What a request announces is what is read, and bad samples are replaced alike, whichever stage finds them."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from maskstream.pipelines import AudioClip, Loader, VideoClip, masks, mix
from maskstream.pipelines.modalities.audio.data import NoisyData
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.batch import Batch
from maskstream.pipelines.stream.sampler import BadRowsError, Composed, Unchanged
from maskstream.shards.errors import SampleError
from maskstream.shards.stores.base import Range

from .every_modality import MODALITIES, write_split
from .recording import check_what_is_read, lies_within, recorded
from .small_media import SAMPLES
from .sources import source_of


@pytest.mark.parametrize("name", MODALITIES)
def test_every_byte_that_is_read_was_announced(name, tmp_path):
    split, store = recorded(write_split(name, tmp_path), name)
    check_what_is_read(MODALITIES[name].source(split).sampler, store, SAMPLES)


def test_noisy_sounds_announce_what_is_read_of_each_split_apart(tmp_path):
    folders = [write_split("audio", tmp_path / name) for name in ("sounds", "noises")]
    (split, store), (noises, noise_store) = (recorded(folder, "audio") for folder in folders)
    assert split.manifest.shard_names == noises.manifest.shard_names
    sampler = NoisyData(noise=str(folders[1]), clip=AudioClip(seconds=0.1)).sampler(split)
    rows = replace(sampler.rows, noise=replace(sampler.rows.noise, manifest=noises.manifest))
    check_what_is_read(replace(sampler, rows=rows), store, SAMPLES, noise_store)


def test_what_lies_outside_is_seen():
    announced = [Range("a", 10, 5), Range("a", 15, 5), Range("b", 0, 9)]
    assert lies_within(Range("a", 11, 9), announced)
    assert not lies_within(Range("a", 11, 10), announced)
    assert not lies_within(Range("a", 9, 2), announced)
    assert not lies_within(Range("b", 10, 1), announced)


BAD = {"clip1", "clip4", "clip5"}


def bad(key):
    return SampleError(shard="t", key=key, component="mp4", reason="is not wanted here")


@dataclass(frozen=True)
class Picky:
    """A sampler that cannot use some samples, which it finds out when it fills their rows."""

    of: object

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.of, name)

    def fill(self, request, draft, rows, stats):
        self.of.fill(request, draft, rows, stats)
        for key in request.keys:
            if key in BAD:
                raise bad(key)


@dataclass(frozen=True)
class PickyFinish:
    """A finish that cannot use them."""

    views: int

    def __call__(self, batch, device):
        rows = {at // self.views: bad(key) for at, key in enumerate(batch.key) if key in BAD}
        if rows:
            raise BadRowsError(rows)
        return batch


def rows(run):
    return [
        (key, batch.video[i].numpy().tobytes(), batch.mask.masked[i].tolist(), batch.mask.weight[i].tolist())
        for batch in run
        for i, key in enumerate(batch.key)
    ]


@pytest.mark.parametrize(("views", "shuffle"), [(1, True), (2, False)])
def test_a_finish_replaces_bad_rows_as_fill_does(split, views, shuffle, caplog):
    settings = {"clip": VideoClip(frames=2, stride=4, size=32), "mask": masks.Random(ratio=0.75), "patch": 8}
    source = source_of(split, **settings, views=views, shuffle=shuffle, seed=3)
    found_late = replace(source, finish=Composed(Unchanged(), PickyFinish(views)))
    found_early = replace(source, sampler=Picky(source.sampler))
    options = {"batch_size": 4, "device": "cpu", "max_bad_fraction": 1.0}
    wanted = Loader(found_early, threads=1, **options)
    expected = rows(wanted)
    assert not {row[0] for row in expected} & BAD
    told = sorted(record.message for record in caplog.records)
    in_workers = [{"threads": 1, "workers": 1}] if views == 1 else []  # of views, they would show the same again
    for ways in ({"threads": 1}, {"threads": 3}, *in_workers):
        for source in (found_early, found_late):
            caplog.clear()
            run = Loader(source, **options, **ways)
            assert rows(run) == expected
            counted = run.stats()
            assert [counted[name] for name in ("bad", "samples")] == [
                wanted.stats()[name] for name in ("bad", "samples")
            ]
            if "workers" not in ways:
                assert sorted(record.message for record in caplog.records) == told
            run.close()
    assert wanted.stats()["bad"] >= len(BAD) - 1


def test_a_finish_that_can_use_nothing_ends_with_the_samples_error(split):
    def finish(batch, device):
        raise BadRowsError({0: bad(batch.key[0])})

    settings = {"clip": VideoClip(frames=2, stride=4, size=32), "patch": 8}
    run = Loader(replace(source_of(split, **settings), finish=finish), batch_size=4, device="cpu", threads=1)
    with pytest.raises(SampleError, match="is not wanted here"):
        next(iter(run))


def test_what_is_in_dicts_moves_with_a_batch():
    fields = {"labels": torch.ones(2, 3), "caption": ["a", "b"]}
    batch = Batch(key=["a", "b"], label=torch.tensor([0, 1]), fields=fields)
    moved = batch.to("meta")
    assert (moved.fields["labels"].device.type, moved.label.device.type) == ("meta", "meta")
    assert moved.fields["caption"] == ["a", "b"]
    weighted = batch.weighted(torch.from_numpy(np.array([0.0], dtype=np.float32)))
    assert weighted.weight.tolist() == [0.0, 0.0]


def test_a_data_config_is_a_source_for_mixtures(split):
    data = VideoData(clip=VideoClip(frames=2, stride=4, size=32), mask=masks.Random(ratio=0.75), patch=8)
    alone = [batch.key for batch in data.loader(split, batch_size=4, device="cpu", threads=1, seed=3)]
    source = data.source(Split.open(split, "video", device="cpu", seed=3))
    other = data.source(Split.open(split, "video", device="cpu", seed=4))
    assert [batch.key for batch in Loader(source, batch_size=4, device="cpu", threads=1)] == alone
    mixed = Loader(mix([(source, 1), (other, 1)]), batch_size=4, device="cpu", threads=1)
    assert len(next(iter(mixed))) == 4
