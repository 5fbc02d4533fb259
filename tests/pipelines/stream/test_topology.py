"""The same global batches at every topology, and after every stop: pixels, masks, flow, times and labels, bit by bit.

Ranks are simulated in this process; workers are real, spawned processes where a case has them.
"""

import json
from collections import Counter
from functools import partial
from itertools import chain, islice

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.testing._internal.distributed.fake_pg  # the backend "fake"
from torch.distributed.device_mesh import init_device_mesh

from maskstream.pipelines import Loader, VideoClip, augment, masks, mix, video_loader
from maskstream.pipelines.stream.order import Order
from maskstream.pipelines.stream.topology import resolve_device
from maskstream.shards.errors import ResumeError

from ..contract import check_relay, join_ranks
from ..sources import source_of

GLOBAL_BATCH = 24
TOPOLOGIES = [
    *((1, 0), (8, 0)),
    *(pytest.param(ranks, workers, marks=pytest.mark.slow) for ranks, workers in ((1, 4), (2, 2), (3, 2), (4, 1))),
]
SETTINGS = {
    "clip": VideoClip(frames=2, stride=4, size=32),
    "mask": masks.MotionGuided(ratio=0.75),
    "augment": augment.RandomResizedCrop(flip=0.5),
    "patch": 8,
    "threads": 1,
    "seed": 11,
}
EPOCHS = 2


def rank_loader(split, rank=0, world_size=1, workers=0, **changes):
    settings = SETTINGS | {"batch_size": GLOBAL_BATCH // world_size} | changes
    return video_loader(split, rank=rank, world_size=world_size, workers=workers, **settings)


def mixture(split, other=None, batch_size=8, **options):
    """Three samples of `split` to one of `other`, where each is a dataset of its own."""
    parts = [source_of(folder, **SETTINGS) for folder in (split, other)]
    return Loader(mix([(parts[0], 3), (parts[1], 1)], seed=5), batch_size=batch_size, threads=1, **options)


def contents(batch):
    """Everything that a batch holds, per clip, as comparable values."""
    rows = []
    for i, key in enumerate(batch.key):
        row = [key, batch.video[i].numpy().tobytes(), int(batch.label[i]), batch.pts_s[i].tolist()]
        row += [getattr(batch.mask, name)[i].numpy().tobytes() for name in ("masked", "visible", "target", "weight")]
        if batch.flow is not None:
            row += [batch.flow.vectors[i].numpy().tobytes(), batch.flow.valid[i].numpy().tobytes()]
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def uninterrupted(uneven):
    """The global batches of two epochs at one rank."""
    run = rank_loader(uneven)
    return [contents(batch) for batch in islice(run.repeat(), EPOCHS * len(run))]


def test_the_run_that_others_are_compared_with_is_what_it_should_be(uninterrupted):
    assert len(uninterrupted) == EPOCHS * (53 // GLOBAL_BATCH)
    for epoch in range(EPOCHS):
        keys = [row[0] for batch in uninterrupted[2 * epoch : 2 * epoch + 2] for row in batch]
        assert len(set(keys)) == len(keys) == 48
        assert keys != sorted(keys)
    rows = list(chain.from_iterable(uninterrupted))
    assert len({row[1] for row in rows}) == len(rows), "every crop is another one"
    assert len({row[3][0] for row in rows}) > 4, "clips start in different places"
    assert len({row[4] for row in rows}) > 10, "masks differ"
    assert all(np.frombuffer(row[8], np.float32).any() for row in rows), "there is flow"


@pytest.mark.parametrize(("ranks", "workers"), TOPOLOGIES)
def test_global_batches_are_bit_equal_at_every_topology(uneven, uninterrupted, ranks, workers):
    """Rank 0 has real worker processes, which shows that they change nothing; its peers would show it again."""
    loaders = [rank_loader(uneven, rank, ranks, workers if rank == 0 else 0) for rank in range(ranks)]
    got = join_ranks(loaders, len(uninterrupted), contents)
    assert got == uninterrupted
    assert len({json.dumps(each.state_dict()) for each in loaders}) == 1
    loaders[0].close()


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("block", [None, 2])
def test_each_sample_comes_at_most_once_in_an_epoch(lanes, block):
    order = Order(shard_sizes=(7, 2, 11, 1, 9, 13, 10), global_batch=GLOBAL_BATCH, lanes=lanes, block=block)
    for epoch in range(5):
        indexes = [i for batch in order.batches(epoch) for i in batch.indexes.tolist()]
        assert len(set(indexes)) == len(indexes) == order.n_batches * GLOBAL_BATCH > 0


@pytest.mark.parametrize("ranks", [1, 3, 8])
def test_validation_gives_each_sample_exactly_once_and_every_rank_as_many_steps(uneven, ranks):
    counted, steps = Counter(), set()
    for rank in range(ranks):
        run = rank_loader(uneven, rank, ranks, shuffle=False, flow="none", mask=masks.Random(ratio=0.75))
        batches = list(run)
        steps.add(len(batches))
        for batch in batches:
            weight = torch.ones(len(batch)) if batch.weight is None else batch.weight
            assert torch.equal(batch.mask.weight.amax(dim=1), weight)
            counted.update(key for key, w in zip(batch.key, weight.tolist(), strict=True) if w)
    assert steps == {3}
    assert counted == Counter({f"u{i}": 1 for i in range(53)})


@pytest.mark.parametrize("kind", ["one dataset", pytest.param("four views", marks=pytest.mark.slow), "mixture"])
def test_a_stop_after_any_batch_twice_is_the_uninterrupted_run_elsewhere(uneven, split, kind):
    """From 2 ranks to 4 to 1, with a stop after every k-th batch, over the end of an epoch."""

    own = partial(rank_loader, uneven, views=4 if kind == "four views" else 1)
    run, size = (partial(mixture, uneven, other=split), 8) if kind == "mixture" else (own, 16)
    whole = run(batch_size=size)
    total = len(whole) + 2
    wanted = join_ranks([whole], total, contents)
    assert whole.epoch == 1
    assert all(len(row) == 10 for row in wanted[0])
    if kind == "mixture":
        assert {row[0][0] for row in wanted[0]} == {"u", "c"}
    for first in range(1, total):
        legs = ((2, 0, first), (4, 0, min(first + 2, total)), (1, 0, total))
        check_relay(run, contents, batch_size=size, legs=legs, wanted=wanted)


@pytest.mark.slow
def test_a_stop_with_worker_processes_is_exact_and_they_stay(uneven, uninterrupted):
    run = rank_loader(uneven, workers=2)
    got = []
    for batch in run:
        got.append(contents(batch))
        break
    workers = worker_pids(run)
    got += [contents(batch) for batch in islice(run.repeat(), 3)]
    assert got == uninterrupted
    assert worker_pids(run) == workers
    run.seek(1)
    assert [contents(batch) for batch in run] == uninterrupted[2:]
    assert worker_pids(run) == workers
    other = rank_loader(uneven)
    other.load_state_dict(run.state_dict())
    assert contents(next(iter(other))) == contents(next(iter(run)))
    run.close()


def worker_pids(run):
    return run._production.pool.pids


def test_a_world_that_does_not_divide_the_global_batch_is_refused_with_the_reason(uneven):
    state = rank_loader(uneven, batch_size=8).state_dict()
    with pytest.raises(ResumeError, match=r"8 samples cannot be shared by 3 ranks evenly; use 1, 2, 4, 8 ranks"):
        rank_loader(uneven, rank=0, world_size=3, batch_size=3).load_state_dict(state)
    with pytest.raises(ResumeError, match="With 2 ranks use batch_size=4"):
        rank_loader(uneven, rank=0, world_size=2, batch_size=2).load_state_dict(state)


def test_a_cuda_device_without_a_number_is_the_current_one(monkeypatch):
    """The number is found in the caller's thread, so that each rank keeps its own device."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", 3)
    assert resolve_device(torch.device("cuda")) == torch.device("cuda", 3)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cpu") == torch.device("cpu")


def test_ranks_with_the_same_place_in_the_data_dimension_of_a_mesh_get_the_same_batches(split):
    """Eight simulated ranks: four that divide the data, two of each that hold parts of one model."""
    settings = SETTINGS | {"batch_size": 2, "mask": masks.Tube(ratio=0.75)}
    alone = [next(iter(video_loader(split, rank=rank, world_size=4, **settings))).key for rank in range(4)]
    for rank in range(8):
        dist.init_process_group("fake", rank=rank, world_size=8, store=dist.HashStore())
        try:
            mesh = init_device_mesh("cpu", (4, 2), mesh_dim_names=("dp", "tp"))
            assert next(iter(video_loader(split, mesh=mesh["dp"], **settings))).key == alone[rank // 2]
            with pytest.raises(ValueError, match=r"2 dimensions \(dp, tp\), .* such as mesh=mesh\['dp'\]"):
                video_loader(split, mesh=mesh, **settings)
            with pytest.raises(ValueError, match="exclude each other"):
                video_loader(split, mesh=mesh["dp"], rank=0, world_size=4, **settings)
        finally:
            dist.destroy_process_group()
