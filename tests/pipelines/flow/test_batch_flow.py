"""Flow of whole batches: with DIS inside, a BatchFlow gives the flow and the masks of `Dis`, bit by bit."""

import json
from functools import partial
from itertools import chain

import pytest
import torch

from maskstream.pipelines import AudioVisualData, Loader, VideoClip, VideoData, augment, masks, mix, video_loader
from maskstream.pipelines.flow.choice import find_flow
from maskstream.pipelines.masks import MotionGuided
from maskstream.pipelines.modalities.video.flow import FlowFinish
from maskstream.pipelines.modalities.video.rows import ClipRowMaker
from maskstream.pipelines.stream.sampler import Unchanged
from maskstream.shards.errors import ResumeError, StoreError

from ..contract import check_order, join_ranks
from ..sources import source_of

OWN = """
from dataclasses import dataclass

import numpy as np
import torch

from maskstream.pipelines.flow import BatchFlow, dis_flow

@dataclass(frozen=True, kw_only=True, slots=True)
class DisOfBatch(BatchFlow):
    cell: int = 8

    def of_clips(self, clips):
        assert clips.dtype == torch.uint8 and not torch.is_grad_enabled()
        flow = [dis_flow(clip, cell=self.cell).vectors for clip in clips.cpu().numpy()]
        return torch.from_numpy(np.stack(flow)).movedim(4, 2).to(clips.device)

COARSE = DisOfBatch(cell=16)

class Half(DisOfBatch):
    def of_clips(self, clips):
        return super(Half, self).of_clips(clips).half()

class ChannelsLast(DisOfBatch):
    def of_clips(self, clips):
        return super(ChannelsLast, self).of_clips(clips).movedim(2, 4)

class Picky(DisOfBatch):
    def unfit(self, profile, *, stride, align):
        return "it wants stride 1" if stride > 1 else None
"""
SETTINGS = {
    "clip": VideoClip(frames=4, size=32),
    "mask": masks.MotionGuided(ratio=0.75),
    "augment": augment.RandomResizedCrop(flip=0.5),
    "patch": 8,
    "seed": 3,
}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The name of a module with sources of flow that workers can import too."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_batch_flow_of_a_test.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield "own_batch_flow_of_a_test"


@pytest.fixture(scope="module")
def of_batch(own):
    return f"{own}:DisOfBatch"


def loader(split, flow, **changes):
    return video_loader(split, **{"device": "cpu", "threads": 1, "batch_size": 4, "flow": flow} | SETTINGS | changes)


def contents(batch):
    """Everything that a batch holds, per clip, as comparable values."""
    assert batch.draws == ()
    parts = [batch.video, batch.label, batch.pts_s, batch.flow.vectors, batch.flow.valid]
    if batch.mask is not None:
        parts += [batch.mask.masked, batch.mask.visible, batch.mask.target, batch.mask.weight]
    return [(key, *(part[i].numpy().tobytes() for part in parts)) for i, key in enumerate(batch.key)]


def assert_equals_dis(split, flow, *, workers=0, **changes):
    """Two ranks, the first with worker processes, give the batches of one with "dis"; returns their masks."""
    count = 4
    changes |= {"steps": count}
    wanted = join_ranks([loader(split, "dis", batch_size=4, **changes)], count, contents)
    changes |= {"batch_size": 2, "world_size": 2}
    loaders = [loader(split, flow, rank=rank, workers=0 if rank else workers, **changes) for rank in range(2)]
    assert join_ranks(loaders, count, contents) == wanted
    for each in loaders:
        each.close()
    drawn = [row[6] for row in chain.from_iterable(wanted)]
    assert len(set(drawn)) > len(drawn) / 2, "masks differ"
    return drawn


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_flow_and_masks_are_those_of_dis(split, of_batch, workers):
    assert_equals_dis(split, of_batch, workers=workers)


@pytest.mark.parametrize(
    "schedule",
    [
        masks.Linear(start=0.9, end=0.5),
        pytest.param(masks.Uniform(low=0.5, high=0.9, scope="batch"), marks=pytest.mark.slow),
    ],
)
def test_the_place_in_the_run_reaches_the_mask(split, of_batch, schedule):
    drawn = assert_equals_dis(split, of_batch, mask=masks.MotionGuided(ratio=schedule))
    assert len({sum(hidden) for hidden in drawn}) > 1, "the ratio changes"


def test_a_sample_has_the_same_mask_in_a_batch_of_any_size(split, of_batch):
    by_key = [
        {row[0]: row for row in chain.from_iterable(map(contents, loader(split, of_batch, batch_size=size)))}
        for size in (1, 2, 4, 11)
    ]
    assert len(by_key[-1]) == 11
    assert all(each[key] == by_key[-1][key] for each in by_key for key in each)


@pytest.mark.slow
def test_each_view_has_its_own_mask_and_a_masks_view_number_counts(split, of_batch):
    mask = masks.ByView(masks=(masks.MotionGuided(ratio=0.75), masks.Tube(ratio=0.75)))
    for settings in ({"views": 2}, {"views": 2, "mask": mask}):
        wanted = [contents(batch) for batch in loader(split, "dis", **settings)]
        assert [contents(batch) for batch in loader(split, of_batch, workers=2, **settings)] == wanted
        assert wanted[0][0][6] != wanted[0][1][6]


def test_padding_has_weight_0(split, of_batch):
    settings = {"shuffle": False, "rank": 1, "world_size": 2, "batch_size": 4}
    wanted, got = list(loader(split, "dis", **settings)), list(loader(split, of_batch, **settings))
    assert [contents(batch) for batch in got] == [contents(batch) for batch in wanted]
    assert torch.equal(got[-1].weight, wanted[-1].weight)
    assert (got[-1].weight == 0).any()
    assert torch.equal(got[-1].mask.weight == 0, (got[-1].weight == 0)[:, None].expand_as(got[-1].mask.weight))


@pytest.mark.parametrize("mask", [masks.MotionGuided(ratio=0.75, base="random"), masks.Padded(mask=SETTINGS["mask"])])
def test_masks_in_torch_are_those_of_the_loops(split, of_batch, mask, monkeypatch):
    settings = {"mask": mask, "views": 2, "shuffle": False, "rank": 1, "world_size": 2}
    wanted = [contents(batch) for batch in loader(split, "dis", **settings)]
    kinds, made = [], MotionGuided.draw_on_device

    def counted(*arguments):
        kinds.append(mask.kind())
        return made(*arguments)

    monkeypatch.setattr(FlowFinish, "_on_device", lambda self, device: True)
    monkeypatch.setattr(MotionGuided, "draw_on_device", counted)
    got = list(loader(split, of_batch, **settings))
    assert [contents(batch) for batch in got] == wanted
    whole = sum(not batch.flow.cuts.any() for batch in got)  # one with a cut is left to the loops
    assert kinds == (["MotionGuided"] * whole if isinstance(mask, MotionGuided) else [])


def test_a_replaced_sample_has_its_own_mask(split, of_batch, monkeypatch):
    read = ClipRowMaker.read

    def broken(self, item, plan):
        if item.key == "clip3":
            raise StoreError("broken for a test")
        return read(self, item, plan)

    monkeypatch.setattr(ClipRowMaker, "read", broken)
    settings = {"batch_size": 11, "max_bad_fraction": 1}
    (wanted,), (got,) = list(loader(split, "dis", **settings)), list(loader(split, of_batch, **settings))
    assert contents(got) == contents(wanted)
    assert "clip3" not in got.key


def mixture(split, *flows, **settings):
    parts = [source_of(split, **SETTINGS | {"flow": flow, "seed": seed}) for seed, flow in enumerate(flows)]
    return Loader(mix([(part, 2 - i) for i, part in enumerate(parts)]), threads=1, device="cpu", **settings)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_mixture_draws_with_the_seed_of_each_part(split, of_batch, workers):
    wanted = [contents(batch) for batch in mixture(split, "dis", "dis", batch_size=4)]
    run = mixture(split, of_batch, of_batch, batch_size=4, workers=workers)
    assert [contents(batch) for batch in run] == wanted
    run.close()


def test_a_mixture_has_one_source_of_flow(split, own, of_batch):
    for other in ("dis", f"{own}:COARSE"):
        with pytest.raises(ValueError, match="differs from part 0 in flow:"):
            mixture(split, of_batch, other)


def test_a_resume_is_exact_and_refused_by_name_with_another_source(split, own, of_batch):
    state = check_order(partial(loader, split, find_flow(of_batch)), contents, batch_size=4)
    with pytest.raises(ResumeError, match=rf"data\.flow: saved {own}:DisOfBatch\(\), here Dis\(\)"):
        loader(split, "dis").load_state_dict(state)
    with pytest.raises(ResumeError, match=r"data\.flow\.cell: saved 8, here 16"):
        loader(split, f"{own}:COARSE").load_state_dict(state)


@pytest.mark.parametrize("mask", [masks.Tube(ratio=0.75), None])
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_mask_that_follows_no_flow_is_drawn_before_it(split, of_batch, mask, workers):
    wanted = [contents(batch) for batch in loader(split, "dis", mask=mask)]
    assert [contents(batch) for batch in loader(split, of_batch, mask=mask, workers=workers)] == wanted
    sampler = source_of(split, **SETTINGS | {"flow": of_batch, "mask": mask}).sampler
    assert not sampler.rows.finish_draws


def test_fields_stay(split, of_batch):
    batch = next(iter(loader(split, of_batch, fields=("fps",))))
    assert len(batch.fields["fps"]) == 4


def test_without_such_a_source_nothing_is_left_to_the_finish(split):
    source = source_of(split, **SETTINGS)
    assert isinstance(source.finish, Unchanged)
    assert not source.sampler.rows.finish_draws


def test_flow_is_float32_and_of_another_shape_is_refused(split, own):
    batch = next(iter(loader(split, f"{own}:Half")))
    assert batch.flow.vectors.dtype == torch.float32
    assert batch.flow.vectors.shape == (4, 3, 4, 4, 2)
    with pytest.raises(ValueError, match=r"the shape \(4, 3, 2, h, w\), got \(4, 3, 4, 4, 2\) from own_batch_flow"):
        next(iter(loader(split, f"{own}:ChannelsLast")))


def test_what_is_refused(split, own, of_batch):
    with pytest.raises(ValueError, match="it wants stride 1"):
        loader(split, f"{own}:Picky")
    with pytest.raises(ValueError, match="which only video loaders accept; pass 'codec', 'dis' or a SampleFlow"):
        AudioVisualData(flow=of_batch)


def test_it_comes_back_from_json(own):
    data = VideoData(flow=find_flow(f"{own}:COARSE"))
    saved = json.loads(json.dumps(data.to_dict()))
    assert VideoData.from_dict(saved) == data
    with pytest.raises(ValueError, match=rf"flow: {own}:DisOfBatch has no field 'cells', did you mean 'cell'"):
        VideoData.from_dict(saved | {"flow": {"kind": f"{own}:DisOfBatch", "cells": 4}})
    with pytest.raises(ValueError, match="flow: the object has no kind"):
        VideoData.from_dict(saved | {"flow": {}})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="a batch on a device needs a CUDA device")
def test_on_a_cuda_device_flow_and_masks_are_those_of_the_cpu(split, of_batch):
    wanted = [contents(batch) for batch in loader(split, of_batch)]
    batches = list(loader(split, of_batch, device="cuda", backend="cpu"))
    assert all(part.is_cuda for batch in batches for part in (batch.flow.vectors, batch.flow.valid, batch.mask.masked))
    assert [contents(batch.to("cpu")) for batch in batches] == wanted
