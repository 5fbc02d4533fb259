"""The loader's promises: the same batches at every topology, exact resume, whole validation, bad samples replaced."""

import shutil
import threading
import time
from dataclasses import replace
from functools import partial
from math import ceil

import numpy as np
import pytest
import torch

from maskstream.pipelines import VideoClip, augment, masks, video_loader
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.shards.errors import ResumeError, SampleError, ShardError
from maskstream.shards.format.manifest import Manifest

from ..contract import check_order
from ..sources import opened

CLIP = VideoClip(frames=4, stride=4, size=32)
SETTINGS = {"clip": CLIP, "mask": masks.Random(ratio=0.75), "patch": 8, "threads": 2, "batch_size": 4, "seed": 7}


def loader(split, **changes):
    return video_loader(split, **(SETTINGS | changes))


def contents(batches):
    """Everything that a batch holds, per clip, as comparable values."""
    rows = []
    for batch in batches:
        for i, key in enumerate(batch.key):
            row = [key, batch.video[i].numpy().tobytes(), int(batch.label[i]), batch.pts_s[i].tolist()]
            if batch.mask is not None:
                row += [getattr(batch.mask, name)[i].tolist() for name in ("masked", "visible", "target", "weight")]
            if batch.flow is not None:
                row += [batch.flow.vectors[i].numpy().tobytes(), batch.flow.valid[i].numpy().tobytes()]
            rows.append(row)
    return rows


def test_a_batch_is_what_its_docstring_says(split):
    batch = next(iter(loader(split, augment=augment.RandomResizedCrop(flip=0.5))))
    assert batch.video.shape == (4, 4, 32, 32, 3)
    assert batch.video.dtype == torch.uint8
    assert batch.video.float().std() > 10
    assert batch.mask.masked.shape == (4, 2 * 4 * 4)
    assert batch.mask.visible.shape == (4, 8)
    assert batch.label.tolist() == [int(k.removeprefix("clip")) % 3 for k in batch.key]
    assert torch.allclose(batch.pts_s.diff(dim=1), torch.full((4, 3), 4 / 30, dtype=torch.float64), atol=1e-3)
    values = batch.pixel_values()
    assert values.shape == (4, 4, 3, 32, 32)
    expected = (batch.video[0, 0, 5, 6].double() / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    assert torch.allclose(values[0, 0, :, 5, 6].double(), expected, atol=1e-5)


@pytest.mark.parametrize("mask", [masks.Random(ratio=0.75), masks.MotionGuided(ratio=0.75)])
def test_ranks_and_threads_change_nothing_and_a_stop_neither(split, mask):
    check_order(partial(loader, split, mask=mask, views=2), batch_size=4, ranks=4)
    wanted = contents(loader(split, mask=mask, threads=1))
    assert contents(loader(split, mask=mask, threads=3)) == wanted


def test_worker_processes_change_nothing_and_flow_crosses_whole(split):
    settings = {"mask": masks.MotionGuided(ratio=0.75), "batch_size": 2}
    wanted = contents(loader(split, **settings))
    spawned = loader(split, workers=2, threads=1, **settings)
    assert contents(spawned) == wanted
    assert spawned.stats()["samples"] == 10
    assert spawned.stats()["read_bytes"] > 0


def test_a_break_goes_on_where_it_stopped(split):
    wanted = [contents([b]) for b in loader(split, batch_size=2)]
    run = loader(split, batch_size=2)
    got = []
    for batch in run:
        got.append(contents([batch]))
        if len(got) == 2:
            break
    assert run.state_dict()["batch"] == 2
    got += [contents([b]) for b in run]
    assert got == wanted
    assert run.epoch == 1


def test_a_resume_that_cannot_be_exact_is_refused(split):
    state = loader(split).state_dict()
    for changes, says in [({"batch_size": 2}, "global_batch"), ({"seed": 8}, "seed"), ({"block": 1}, "block")]:
        with pytest.raises(ResumeError, match=f"{says}: saved"):
            loader(split, **changes).load_state_dict(state)
    with pytest.raises(ResumeError, match="dataset: saved another"):
        loader(split).load_state_dict(state | {"dataset": "another"})


def test_views_share_the_clip_and_differ_in_crop_and_mask(split):
    batch = next(iter(loader(split, views=3)))
    assert len(batch) == 12
    assert batch.key[0] == batch.key[1] == batch.key[2]
    assert torch.equal(batch.pts_s[0], batch.pts_s[2])
    assert len({m.numpy().tobytes() for m in batch.mask.masked[:3]}) == 3
    assert len({v.numpy().tobytes() for v in batch.video[:3]}) > 1
    single = next(iter(loader(split)))
    assert contents([single])[0] == contents([batch])[0]


def test_only_the_bytes_up_to_the_last_packet_are_read(split):
    manifest = Manifest.load(split)
    settings = {"clip": replace(CLIP, frames=2), "mask": None, "shuffle": False}
    run = loader(split, **settings, batch_size=11)
    list(run)
    _, sampler = opened(split, **(SETTINGS | settings))
    needed = whole = 0
    for i in range(11):
        video, numbers = manifest.video(i), sampler.request(Wanted.of([i])).plans[0].numbers
        gops = sorted(set((np.searchsorted(video.first_frame, numbers, side="right") - 1).tolist()))
        whole += sum(int(video.size[g]) for g in gops)  # the manifest has the header
        reach = video.anchor_reach[numbers.max() // 4]
        needed += sum(int(video.size[g]) for g in gops[:-1]) + ceil(int(video.size[gops[-1]]) * reach / 100)
    assert run.stats()["read_bytes"] == needed < whole
    assert whole < sum(manifest.video(i).header_size + int(manifest.video(i).size.sum()) for i in range(11))


def test_a_missing_shard_is_an_error_that_names_it(split, tmp_path):
    broken = tmp_path / "split"
    shutil.copytree(split, broken)
    for tar in broken.glob("*.tar"):
        tar.unlink()
    with pytest.raises(SampleError, match=r"t-00000\d.tar"):
        list(loader(broken))


def test_epochs_share_the_threads_of_a_loader_which_end_with_it(split):
    before, run = set(threading.enumerate()), loader(split)
    seen = []
    for _ in range(3):
        iterator = iter(run)
        next(iterator)
        iterator.close()
        seen.append(set(threading.enumerate()) - before)
    assert list(run)
    assert seen[0] == seen[1] == seen[2] == set(threading.enumerate()) - before != set()
    del run, iterator
    until = time.monotonic() + 30
    while set(threading.enumerate()) - before and time.monotonic() < until:
        time.sleep(0.01)
    assert set(threading.enumerate()) <= before


def test_without_threads_the_caller_makes_each_batch_as_it_asks_for_it(split):
    mask = masks.MotionGuided(ratio=0.75)
    wanted = contents(loader(split, mask=mask, threads=1))
    before = set(threading.enumerate())
    run = loader(split, mask=mask, threads=0)
    with torch.inference_mode():
        batches = iter(run)
        first = next(batches)
        assert run.stats()["samples"] == len(first)
        assert contents([first, *batches]) == wanted
    assert not first.video.is_inference()
    assert not first.mask.visible.is_inference()
    assert set(threading.enumerate()) <= before


def test_a_loader_that_is_closed_ends_its_threads_and_can_go_on(split):
    before, run = set(threading.enumerate()), loader(split)
    wanted = contents(run)
    run.load_state_dict({**run.state_dict(), "epoch": 0, "batch": 0})
    run.close()
    until = time.monotonic() + 30
    while set(threading.enumerate()) - before and time.monotonic() < until:
        time.sleep(0.01)
    assert set(threading.enumerate()) <= before
    assert contents(run) == wanted


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"views": 0}, "views must be"),
        ({"backend": "gpu"}, r"backend must be.*did\ you\ mean\ 'cpu'\?"),
        ({"flow": "rafts"}, "'codec', 'dis'"),
        ({"flow": "raft"}, "has no weights"),
        ({"flow": "none", "mask": masks.MotionGuided()}, "needs flow"),
        ({"flow": "codec", "clip": replace(CLIP, stride=2)}, "stride 2"),
        ({"rank": 3, "world_size": 2}, "rank=3"),
        ({"patch": 7}, "7"),
        ({"batch_size": 12}, "do not fill one global batch"),
    ],
)
def test_impossible_settings_are_refused_at_once(split, changes, says):
    with pytest.raises(ValueError, match=says):
        loader(split, **changes)


def test_a_place_that_is_no_split_is_an_error(tmp_path):
    with pytest.raises(ShardError, match="dataset"):
        loader(tmp_path)
    with pytest.raises(ValueError, match="looks like a shell pipe"):
        loader("pipe:cat x.tar")


def test_flow_follows_the_texture(split):
    batch = next(
        iter(loader(split, flow="codec", mask=None, clip=replace(CLIP, size=64), augment=augment.CenterCrop()))
    )
    valid = batch.flow.valid
    assert valid.float().mean() > 0.5
    inside = batch.flow.vectors[:, :, 2:-2, 2:-2][valid[:, :, 2:-2, 2:-2]]
    # the texture moves by (2, 1) pixels a frame, 4 frames from sample to sample; it was at p - (8, 4) before
    assert torch.allclose(inside.median(dim=0).values, torch.tensor([-8.0, -4.0]), atol=0.5)
