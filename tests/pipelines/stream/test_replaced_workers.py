"""A worker process that dies or falls silent is replaced, and the batches are those of an undisturbed run."""

import errno
import importlib
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from maskstream.pipelines import VideoClip, masks, video_loader
from maskstream.pipelines.stream import workers as pools
from maskstream.pipelines.stream.produce import Threads, plans, yield_from_threads
from maskstream.pipelines.stream.workers import WorkerPool
from maskstream.shards.errors import OutageError, WorkerDiedError


@pytest.fixture
def numbered(monkeypatch):
    """numbered.py, as processes can import it."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("numbered")


def plans_of(maker):
    return plans(maker.order, 0, 0, 0, 1, endless=True)


def undisturbed(numbered, batches):
    maker = numbered.maker()
    with closing(yield_from_threads(maker, plans_of(maker), Threads.of(1), 1)) as made:
        return [one.batch for one in islice(made, batches)]


def pool_of(maker, workers, timeout_s=60.0):
    return WorkerPool(maker, workers=workers, threads=2, prefetch=2, timeout_s=timeout_s)


def same(one, other):
    return one.key == other.key and torch.equal(one.values, other.values) and torch.equal(one.label, other.label)


def left_in_memory(pids):
    """The files in shared memory that are named after processes; other tests have theirs there."""
    return [name for name in os.listdir("/dev/shm") if {*map(str, pids)} & {*re.findall(r"\d+", name)}]


def killed_at(moments, pool, made):
    """The batches, while processes of the pool get signals: moments are (batch, worker, signal)."""
    pids = set()
    for number, one in enumerate(made):
        pids.update(pool.pids)
        for batch, worker, how in moments:
            if batch == number:
                os.kill(pool.pids[worker], how)
        yield one, pids


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "kills"),
    [
        (1, [signal.SIGKILL]),
        (2, [signal.SIGSEGV, signal.SIGSTOP]),
        (4, [signal.SIGKILL, signal.SIGKILL]),
    ],
)
def test_killed_and_stopped_workers_are_replaced_and_change_nothing(numbered, caplog, workers, kills):
    rng = np.random.default_rng(workers)
    batches = sorted(rng.choice(np.arange(1, 20), len(kills), replace=False).tolist())
    moments = [(b, w, how) for b, w, how in zip(batches, rng.permutation(workers).tolist(), kills, strict=False)]
    check(numbered, caplog, workers, moments, 20 + 3 * workers + 2)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_eight_kills_change_nothing(numbered, caplog, workers):
    rng = np.random.default_rng(workers)
    kinds = [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP, signal.SIGABRT]
    apart = 3 * workers + 2  # a dead worker is noticed when the batches that it made are handed out
    moments = [(apart * i + int(rng.integers(2)), int(rng.integers(workers)), kinds[i % 4]) for i in range(8)]
    check(numbered, caplog, workers, moments, apart * 9)


def check(numbered, caplog, workers, moments, batches):
    """Each kill ends one process, costs no batch and leaves nothing behind."""
    wanted = undisturbed(numbered, batches)
    maker = numbered.maker()
    pool = pool_of(maker, workers, timeout_s=2.0)
    restarts, files, pids = 0, [], set()
    with closing(pool.batches(plans_of(maker))) as made:
        for number, (one, pids) in enumerate(islice(killed_at(moments, pool, made), batches)):  # noqa: B007
            assert same(one.batch, wanted[number]), number
            restarts += one.stats.restarts
            files.append(len(os.listdir("/proc/self/fd")))
        assert not left_in_memory({os.getpid(), *pids})
    assert restarts == len(moments) == len(pids) - workers
    assert len(caplog.records) == restarts
    says = ("a new one recreates batch", "a new one takes its place")  # the second if it had answered everything
    assert all(any(words in record.message for words in says) for record in caplog.records)
    assert files[-1] <= files[1] + 3 * workers + 1  # the memory files that each worker keeps come one by one
    pool.close()


@pytest.mark.slow
def test_a_worker_that_dies_or_hangs_in_the_middle_of_a_batch_makes_it_again(numbered, tmp_path, caplog):
    wanted = undisturbed(numbered, 10)
    third, seventh = (plan.indexes.tolist() for plan in islice(plans_of(numbered.maker()), 2, 7, 4))
    maker = numbered.maker(poison={third[1]: "SIGSEGV", seventh[4]: "hang"}, once=tmp_path)
    pool = pool_of(maker, 1, timeout_s=2.0)
    with closing(pool.batches(plans_of(maker))) as made:
        assert all(same(one.batch, other) for one, other in zip(islice(made, 10), wanted, strict=True))
    pool.close()
    said = sorted(record.message.split(maxsplit=3)[3] for record in caplog.records)
    said = [text.split(";")[0] for text in said]
    assert said == ["did nothing for 2 s and was killed", "was killed by signal 11 (SIGSEGV)"]


@pytest.mark.slow
def test_a_worker_that_compiles_kernels_is_waited_for(numbered, caplog):
    wanted = undisturbed(numbered, 3)
    maker = importlib.import_module("compiling").compiling()
    pool = pool_of(maker, 1, timeout_s=1.0)
    with closing(pool.batches(plans_of(maker))) as made:
        assert all(same(one.batch, other) for one, other in zip(islice(made, 3), wanted, strict=True))
    pool.close()
    assert not caplog.records


@pytest.mark.slow
def test_a_sample_that_kills_every_process_is_named(numbered, caplog):
    maker = numbered.maker(poison={57: "SIGSEGV"})
    pool = pool_of(maker, 2)
    got = []
    with pytest.raises(WorkerDiedError, match=r"signal 11 \(SIGSEGV\).*and did not finish 'n57' in 5.tar\. If"):
        got.extend(pool.batches(plans_of(maker)))
    pool.close()
    numbers = [i for plan in islice(plans_of(maker), 10) for i in plan.indexes.tolist()]
    assert len(got) == numbers.index(57) // numbered.BATCH
    assert len(caplog.records) in (2, 3)


@pytest.mark.slow
def test_processes_that_cannot_start_are_an_error_that_names_the_batch(numbered, monkeypatch, capfd):
    maker = numbered.maker()
    pool = pool_of(maker, 1)
    monkeypatch.setattr(pools, "serve", numbered.maker)  # takes no such arguments, so the process ends with code 1
    with pytest.raises(WorkerDiedError, match=r"ended with code 1 while it started; its samples are '?n\d+'"):
        next(pool.batches(plans_of(maker)))
    pool.close()
    assert capfd.readouterr().err.count("TypeError") == pools.TRIES


@pytest.mark.slow
def test_a_thread_that_waits_for_a_batch_ends_when_the_pool_is_closed(numbered):
    maker = numbered.maker(poison=dict.fromkeys(range(80), "hang"))
    pool = pool_of(maker, 1)
    with ThreadPoolExecutor(1) as thread:
        waits = thread.submit(next, pool.batches(plans_of(maker)))
        while not pool.pids[0]:
            time.sleep(0.05)
        pool.close()
        with pytest.raises(RuntimeError, match="was closed while it waited"):
            waits.result(timeout=30)
    assert pool.pids == [0]


@pytest.mark.slow
def test_an_epoch_that_close_cuts_short_does_not_look_complete(numbered):
    maker = numbered.maker()
    pool = pool_of(maker, 1)
    made = pool.batches(plans_of(maker))
    next(made)
    pool.close()
    with pytest.raises(RuntimeError, match="was closed while it waited"):
        next(made)
    with closing(pool):
        assert same(next(pool.batches(plans_of(maker))).batch, undisturbed(numbered, 1)[0])


@pytest.mark.slow
def test_many_workers_start_in_turns_and_only_for_a_batch(numbered, monkeypatch, caplog):
    monkeypatch.setattr(pools, "_AT_ONCE", 1)
    monkeypatch.setattr(pools, "cores", lambda: 2)
    monkeypatch.setattr(pools, "_PER_CORE", 1)
    start, starting = pools._Worker.start, []

    def noted(worker):
        start(worker)
        starting.append(sum(one.is_starting for one in pool._workers))

    monkeypatch.setattr(pools._Worker, "start", noted)
    maker = numbered.maker()
    pool = pool_of(maker, 40)
    made = [one.batch for one in pool.batches(islice(plans_of(maker), 3))]
    assert all(map(same, made, undisturbed(numbered, 3)))
    assert [pid > 0 for pid in pool.pids] == [True] * 3 + [False] * 37
    assert len(starting) == 3
    assert max(starting) <= 2
    assert "starting 40 worker processes, 2 at a time; this process may use 2 cores, so more than about workers=2" in (
        caplog.text
    )
    pool.close()


def test_a_process_that_cannot_be_started_is_an_outage(numbered, monkeypatch):
    def full():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    maker = numbered.maker()
    pool = pool_of(maker, 2)
    monkeypatch.setattr(pools.socket, "socketpair", full)
    with pytest.raises(OutageError, match=r"cannot be started \(Too many open files\); raise `ulimit -n` and"):
        next(pool.batches(plans_of(maker)))
    monkeypatch.undo()
    pool.close()


@pytest.mark.slow
def test_a_seek_drops_what_was_asked_for_before(numbered):
    maker = numbered.maker()
    wanted = undisturbed(numbered, 6)
    pool = pool_of(maker, 2)
    first = pool.batches(plans_of(maker))
    next(first)
    second = pool.batches(plans(maker.order, 0, 3, 0, 1))
    assert same(next(second).batch, wanted[3])
    assert next(first, None) is None
    assert same(next(second).batch, wanted[4])
    pids = pool.pids
    assert len(list(second)) == maker.order.n_batches - 5
    assert pool.pids == pids
    pool.close()


@pytest.mark.slow
def test_a_loader_goes_on_after_a_kill_and_counts_it(uneven):
    settings = {
        "clip": VideoClip(frames=2, stride=4, size=32),
        "mask": masks.Random(ratio=0.75),
        "patch": 8,
        "batch_size": 4,
        "threads": 1,
    }
    wanted = [(b.key, b.video) for b in islice(video_loader(uneven, **settings).repeat(), 13)]
    run = video_loader(uneven, **settings, workers=1)
    got = []
    for batch in islice(run.repeat(), 13):
        got.append((batch.key, batch.video))
        if len(got) == 2:
            os.kill(run._production.pool.pids[0], signal.SIGKILL)
    assert all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(got, wanted, strict=True))
    assert run.stats()["restarts"] == 1
    run.close()


def test_a_worker_timeout_is_above_zero(split):
    for wrong in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="worker_timeout must be a number above 0 seconds"):
            video_loader(split, clip=VideoClip(frames=2, stride=4, size=32), worker_timeout=wrong)
