"""What every loader promises in any modality: one order at every topology, exact resume, bad samples replaced."""

import json
import logging
import pickle
import shutil
from collections import deque
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch

from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream import kept
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.produce import BatchMaker, batch_of
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.shards.errors import ResumeError, SampleError, ShardError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify

from ..with_new_checksum import renew_checksum
from .every_modality import LOADERS, Littered, write_split
from .small_media import SAMPLES

GLOBAL_BATCH = 6
PER_EPOCH = SAMPLES // GLOBAL_BATCH
EPOCHS = 2


@pytest.fixture(scope="module", params=list(LOADERS))
def kind(request, tmp_path_factory):
    """A modality and the folder of its split."""
    modality = LOADERS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    return modality, write_split(request.param, folder)


@pytest.fixture(scope="module")
def uninterrupted(kind):
    """The global batches of some epochs at one rank."""
    run = opened(kind)
    return [kind[0].rows(batch) for batch in islice(run.repeat(), EPOCHS * len(run))]


def opened(kind, ranks=1, rank=0, **options):
    settings = {"seed": 5, "threads": 1, "device": "cpu", "batch_size": GLOBAL_BATCH // ranks} | options
    return kind[0].loader(kind[1], rank=rank, world_size=ranks, **settings)


def source_of(kind):
    split = Split.open(kind[1], Manifest.load(kind[1]).info["modality"], seed=5, device="cpu")
    return kind[0].source(split)


def together(kind, iterators):
    """Global batches: what the ranks give in a step, one after the other."""
    return [list(chain.from_iterable(map(kind[0].rows, step))) for step in zip(*iterators, strict=True)]


def test_samples_differ_within_a_batch_and_from_epoch_to_epoch(uninterrupted):
    rows = [row for batch in uninterrupted for row in batch]
    assert len(uninterrupted) == EPOCHS * PER_EPOCH
    assert len({str(row) for row in rows}) == len(rows)
    assert all(len(row) > 2 for row in rows)


@pytest.mark.parametrize(("ranks", "workers"), [(2, 0), (3, 0), pytest.param(1, 2, marks=pytest.mark.slow)])
def test_the_same_global_batches_at_every_topology(kind, uninterrupted, ranks, workers):
    loaders = [opened(kind, ranks, rank, workers=workers) for rank in range(ranks)]
    got = together(kind, [islice(each.repeat(), EPOCHS * len(each)) for each in loaders])
    assert got == uninterrupted
    assert len({json.dumps(each.state_dict()) for each in loaders}) == 1
    pids = [pid for each in loaders if workers for pid in each._production.pool.pids]
    have_torch = {"libtorch" in Path(f"/proc/{pid}/maps").read_text() for pid in pids}
    assert have_torch == ({kind[0].torch} if workers else set())
    for each in loaders:
        each.close()


@pytest.mark.parametrize("stop", range(1, EPOCHS * PER_EPOCH))
def test_a_stop_and_a_resume_elsewhere_is_the_uninterrupted_run(kind, uninterrupted, stop):
    total = len(uninterrupted)
    run = opened(kind)
    head = [kind[0].rows(batch) for batch in islice(run.repeat(), stop)]
    state = json.loads(json.dumps(run.state_dict()))
    ranks = 1 if stop == PER_EPOCH else 2
    others = [opened(kind, ranks, rank) for rank in range(ranks)]
    for each in others:
        each.load_state_dict(state)
    tail = together(kind, [islice(each.repeat(), total - stop) for each in others])
    assert head + tail == uninterrupted
    with pytest.raises(ResumeError, match="seed: saved"):
        opened(kind, seed=6).load_state_dict(state)


def test_batches_are_the_same_in_memory_that_others_had(kind, uninterrupted, monkeypatch):
    monkeypatch.setattr(kept, "LARGE", 1)
    monkeypatch.setattr(kept, "_kept", Littered())
    run = opened(kind, threads=2)
    held = list(islice(run.repeat(), EPOCHS * len(run)))
    assert len(kept._kept._covers) >= len(held)
    deque(islice(run.repeat(), len(held)), maxlen=0)
    assert list(map(kind[0].rows, held)) == uninterrupted


def test_batches_are_the_same_in_inference_mode(kind, uninterrupted):
    with torch.inference_mode():
        assert kind[0].rows(next(iter(opened(kind, threads=2)))) == uninterrupted[0]


def test_validation_shows_every_sample_once(kind):
    counted = []
    for rank in range(2):
        for batch in opened(kind, 2, rank, shuffle=False):
            weight = [1.0] * len(batch) if batch.weight is None else batch.weight.tolist()
            counted += [key for key, w in zip(batch.key, weight, strict=True) if w]
    assert sorted(counted) == sorted(Manifest.load(kind[1]).keys(range(SAMPLES)))


def test_a_bad_sample_is_replaced_alike_everywhere_counted_and_named(kind, tmp_path, caplog):
    modality, split = kind
    shutil.copytree(split, tmp_path / "split")
    broken = (modality, tmp_path / "split")
    manifest = Manifest.load(broken[1])
    name, offset, size = manifest.member(3, modality.component)
    path = manifest.folder / name
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(np.random.default_rng(0).bytes(size))
    with caplog.at_level(logging.WARNING):
        run = opened(broken, shuffle=False, max_bad_fraction=0.5)
        keys = [key for batch in run for key in batch.key]
    # Samples next to it are not believed either where a block holds the end of one and the beginning of another.
    assert run.stats()["bad"] == len(caplog.records) in (1, 2, 3)
    assert f"{manifest.key(3)!r} in {path.name}, component" in caplog.text
    assert manifest.key(3) not in keys
    again = opened(broken, shuffle=False, max_bad_fraction=0.5, threads=3)
    assert [key for batch in again for key in batch.key] == keys
    with pytest.raises(SampleError, match="max_bad_fraction"):
        list(opened(broken, shuffle=False, max_bad_fraction=0.0))
    assert any("(xxh3_128)" in problem for problem in verify(broken[1]).problems)


def test_a_changed_bit_never_shows_as_another_sample(kind, tmp_path):
    modality, split = kind
    shutil.copytree(split, tmp_path / "split")
    sampler = source_of((modality, tmp_path / "split")).sampler
    manifest = Manifest.load(tmp_path / "split")
    rng, told = np.random.default_rng(0), 0
    for _ in range(20):
        index = int(rng.integers(SAMPLES))
        name, offset, size = manifest.member(index, modality.component)
        path = manifest.folder / name
        place, bit = offset + int(rng.integers(size)), 1 << int(rng.integers(8))
        before = modality.rows(batch_of(sampler, Wanted.of([index])))
        with path.open("r+b") as file:
            for changed in (True, False):
                file.seek(place)
                byte = file.read(1)[0] ^ bit
                file.seek(place)
                file.write(bytes([byte]))
                file.flush()
                try:
                    assert modality.rows(batch_of(sampler, Wanted.of([index]))) == before
                except SampleError as error:
                    assert changed
                    assert "differ from what was written" in str(error)
                    told += 1
    assert told > 0


def test_what_a_worker_is_sent_is_small_and_makes_the_same(kind, uninterrupted):
    run = opened(kind)
    source = source_of(kind)
    sent = pickle.dumps(BatchMaker(sampler=source.sampler, order=run.order))
    assert len(sent) < 100_000
    source = replace(source, sampler=pickle.loads(sent).sampler)
    again = Loader(source, batch_size=GLOBAL_BATCH, device="cpu", threads=1)
    assert kind[0].rows(next(iter(again))) == uninterrupted[0]


def test_its_shards_are_whole(kind):
    assert verify(kind[1], decode=True).problems == []


def test_another_modality_and_impossible_settings_are_refused(kind, tmp_path):
    shutil.copytree(kind[1], tmp_path / "split")
    renew_checksum(tmp_path / "split", modality="smell")
    with pytest.raises(ShardError, match="smell"):
        opened((kind[0], tmp_path / "split"))
    with pytest.raises(ValueError, match=r"(batch_size|rows) must be an integer of at least 1, got 0"):
        opened(kind, batch_size=0)
    with pytest.raises(ValueError, match="looks like a shell pipe"):
        kind[0].loader("pipe:cat x.tar")
