"""The life of worker processes and of the loader around them: they stay, they end, and they leave nothing behind."""

import gc
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields, is_dataclass
from itertools import islice
from pathlib import Path

import av
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from maskstream.pipelines import Field, Loader, VideoClip, masks, mix, video_loader
from maskstream.pipelines.stream.produce import BatchMaker
from maskstream.shards.errors import SampleError

from ...attacks.processes import workers_of
from ..sources import source_of
from .test_replaced_workers import left_in_memory


class OwnMask(masks.Random):
    """A mask that this package does not know, which may use torch."""


SETTINGS = {
    "clip": VideoClip(frames=2, stride=4, size=32),
    "mask": masks.Random(ratio=0.75),
    "patch": 8,
    "threads": 1,
    "batch_size": 4,
}
SCRIPT = """
import signal, sys, time
from itertools import islice
from maskstream.pipelines import VideoClip, masks, video_loader

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
    run = video_loader(sys.argv[1], clip=VideoClip(frames=2, stride=4, size=32), mask=masks.Random(ratio=0.75), patch=8,
                       batch_size=4, workers=2, threads=1, device="cpu")
    for n, batch in enumerate(run.repeat()):
        if n == 2:
            print(*run._production.pool.pids, flush=True)
        time.sleep(0.05)
"""
LEFT = """
import sys
from maskstream.pipelines import VideoClip, masks, video_loader

if __name__ == "__main__":
    run = video_loader(sys.argv[1], clip=VideoClip(frames=2, stride=4, size=32), mask=masks.Random(ratio=0.75), patch=8,
                       batch_size=4, workers=int(sys.argv[2]), threads=2, device="cpu")
    batches = run.repeat()
    print(len(next(batches)))
"""


def loader(split, **changes):
    return video_loader(split, **(SETTINGS | changes))


def keys(batches):
    return [batch.key for batch in batches]


def pids(run):
    return run._production.pool.pids


def gone(pid, within_s=60.0):
    """Whether the process ends in time; one that ended and waits for its parent counts."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def running(uneven, tmp_path):
    """A process that loads with two workers, and the workers' ids."""
    script = tmp_path / "load.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, script, uneven],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2
    yield process, workers
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed_and_leave_nothing(running):
    process, workers = running
    assert not any(gone(pid, 0.1) for pid in workers)
    process.kill()
    assert all(gone(pid) for pid in workers)
    assert not left_in_memory({process.pid, *workers})


@pytest.mark.slow
def test_there_are_no_named_semaphores_that_a_killed_group_would_leave(running):
    process, workers = running
    lines = [line for pid in (process.pid, *workers) for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    assert any("/memfd:maskstream" in line for line in lines)
    assert [line for line in lines if "/dev/shm" in line and not line.endswith("(deleted)")] == []


def tensors_of(batch, name="batch"):
    """The tensors in a batch by their paths, and what else is in it."""
    if is_dataclass(batch):
        batch = {f.name: getattr(batch, f.name) for f in fields(batch)}
    if isinstance(batch, dict):
        return {path: one for key, own in batch.items() for path, one in tensors_of(own, f"{name}.{key}").items()}
    return {name: batch}


def assert_same(batch, expected):
    got, wanted = tensors_of(batch), tensors_of(expected)
    assert got.keys() == wanted.keys()
    for name, one in wanted.items():
        assert type(got[name]) is type(one), name
        if isinstance(one, torch.Tensor):
            assert (got[name].dtype, got[name].stride()) == (one.dtype, one.stride()), name
            assert torch.equal(got[name], one), name
        else:
            assert got[name] == one, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "has_torch"),
    [
        ({}, False),
        ({"mask": masks.MotionGuided(ratio=0.75), "views": 2}, False),
        ({"mask": masks.Padded(mask=masks.Random(ratio=masks.Uniform(low=0.3, high=0.8))), "output": "tokens"}, False),
        (
            {"shuffle": False, "rank": 1, "world_size": 2, "batch_size": 5, "fields": (Field(name="n", default=1),)},
            False,
        ),
        ({"flow": "dis"}, True),
        ({"mask": OwnMask(ratio=0.75)}, True),
    ],
    ids=["random", "motion", "tokens", "weights and fields", "dis", "a mask of one's own"],
)
def test_workers_import_torch_only_where_their_loader_needs_it_and_make_the_same_batches(split, changes, has_torch):
    run = loader(split, workers=2, **changes)
    for batch, expected in zip(run, loader(split, **changes), strict=True):
        assert_same(batch, expected)
    assert ["libtorch" in Path(f"/proc/{pid}/maps").read_text() for pid in pids(run)] == [has_torch] * 2
    run.close()


@pytest.mark.slow
def test_a_mixture_needs_torch_where_a_part_does(split):
    def mixed(*flows):
        settings = {name: SETTINGS[name] for name in ("clip", "mask", "patch")}
        return mix([(source_of(split, **settings, flow=flow, seed=n), n + 1) for n, flow in enumerate(flows)])

    alone, run = (
        Loader(mixed("codec", "codec"), batch_size=4, workers=workers, threads=1, device="cpu") for workers in (0, 1)
    )
    for batch, expected in zip(run, alone, strict=True):
        assert_same(batch, expected)
    assert batch.source.unique().tolist() == [0, 1]
    assert "libtorch" not in Path(f"/proc/{pids(run)[0]}/maps").read_text()
    run.close()
    assert mixed("codec", "dis").sampler.needs_torch


@pytest.mark.slow
def test_ctrl_c_is_the_parents_and_ends_everything(running):
    process, workers = running
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode in (1, -signal.SIGINT, 130)
    assert errors.count("Traceback") == 1, errors
    assert "KeyboardInterrupt" in errors
    assert all(gone(pid) for pid in workers)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_program_that_ends_within_an_iteration_says_nothing(split, tmp_path, workers):
    script = tmp_path / "left.py"
    script.write_text(LEFT)
    words = [sys.executable, script, split, str(workers)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "4\n", "")


def test_workers_stay_for_epochs_end_on_close_and_come_again(uneven):
    wanted, run = keys(islice(loader(uneven).repeat(), 40)), loader(uneven, workers=1)
    got = keys(run)
    first = pids(run)
    got += keys(islice(run.repeat(), 13))
    assert pids(run) == first
    run.close()
    assert all(gone(pid) for pid in first)
    got += keys(islice(run.repeat(), 14))
    again = pids(run)
    assert again != first
    assert got == wanted
    del run
    gc.collect()
    assert all(gone(pid) for pid in again)


@pytest.mark.slow
def test_an_error_in_a_worker_is_what_it_is_in_a_thread_and_ends_the_workers(uneven, tmp_path):
    shutil.copytree(uneven, tmp_path, dirs_exist_ok=True)
    for tar in tmp_path.glob("*.tar"):
        tar.write_bytes(b"")
    run = loader(tmp_path, workers=1, max_bad_fraction=1.0)
    with pytest.raises(SampleError, match=r"u-00000\d.tar"):
        next(iter(run))
    assert run._production.pool is None
    assert not [worker for server in workers_of(os.getpid()) for worker in workers_of(server)]


def test_a_loader_has_one_iteration_at_a_time(split):
    run = loader(split, batch_size=2)
    first = iter(run)
    next(first)
    next(iter(run))
    assert run.state_dict()["batch"] == 2
    with pytest.raises(RuntimeError, match="one position"):
        next(first)
    first = iter(run)
    next(first)
    run.seek(3)
    with pytest.raises(RuntimeError, match="was moved"):
        next(first)
    assert run.epoch == 3


def test_repeat_is_the_epochs_one_after_the_other(split):
    a, b = loader(split, batch_size=3), loader(split, batch_size=3)
    wanted = [key for _ in range(3) for key in keys(a)]
    assert keys(islice(b.repeat(), 9)) == wanted
    assert (b.epoch, b.state_dict()["batch"]) == (3, 0)
    assert len({tuple(map(tuple, wanted[i : i + 3])) for i in (0, 3, 6)}) == 3


def test_a_loader_is_an_iterable_dataset_for_any_dataloader(split):
    wanted = keys(islice(loader(split).repeat(), 6))
    run = loader(split)
    dataset = run.as_dataset(lambda batch: {"pixel_values": batch.pixel_values(), "key": batch.key})
    assert isinstance(dataset, IterableDataset)
    batches = DataLoader(dataset, batch_size=None)
    assert len(batches) == len(run) == 2
    got = [batch["key"] for _ in range(2) for batch in batches]
    assert run.epoch == 2
    state = dataset.state_dict()
    other = loader(split)
    endless = DataLoader(other.as_dataset(repeat=True), batch_size=None)
    endless.dataset.load_state_dict(state)
    got += keys(islice(endless, 2))
    assert got == wanted
    assert next(iter(batches))["pixel_values"].dtype == torch.float32
    with pytest.raises(ValueError, match="pass workers= to the loader"):
        next(iter(DataLoader(_Pickled(), batch_size=None, num_workers=1)))


class _Pickled(IterableDataset):
    """A dataset that asks for a loader's batches inside a worker of another DataLoader."""

    def __iter__(self):
        from maskstream.pipelines.stream.torch_dataset import BatchDataset

        return iter(BatchDataset([], None, False))


def test_what_a_worker_is_sent_is_small_and_whole(split):
    settings = {name: value for name, value in SETTINGS.items() if name not in ("batch_size", "threads")}
    mixed = mix([(source_of(split, **settings), 2), (source_of(split, **settings, seed=1), 1)])
    order = mixed.samples.order(4)
    sent = pickle.dumps(BatchMaker(sampler=mixed.sampler, order=order))
    assert len(sent) < 100_000
    back = pickle.loads(sent)
    assert [b.indexes.tolist() for b in back.order.batches(1)] == [b.indexes.tolist() for b in order.batches(1)]


@pytest.mark.slow
def test_loading_leaves_torchs_random_state_alone(uneven):
    before = torch.random.get_rng_state()
    run = loader(uneven, workers=1)
    next(iter(run))
    run.close()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_decoded_frames_are_gone_with_their_batch_without_a_garbage_collection(split):
    run = loader(split, mask=masks.MotionGuided(ratio=0.75), flow="codec", batch_size=2)
    gc.collect()
    gc.disable()
    try:
        before = sum(type(thing) is av.VideoFrame for thing in gc.get_objects())
        seen = [batch.flow is not None for batch in islice(run.repeat(), 10)]
        frames = sum(type(thing) is av.VideoFrame for thing in gc.get_objects())
    finally:
        gc.enable()
    assert all(seen)
    assert frames <= before + SETTINGS["threads"]  # the open decoder of each thread has one
