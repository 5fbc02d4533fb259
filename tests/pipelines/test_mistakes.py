"""Frequent mistakes in the arguments of loaders: each message has the passed value and the allowed ones."""

import json
import os

import numpy as np
import pytest

from maskstream.pipelines import AudioClip, Loader, VideoClip, VideoData, audio_loader, image_loader, masks, mix
from maskstream.pipelines import video_loader as open_loader
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.topology import usable_device
from maskstream.shards.errors import ResumeError, ShardError

CLIP = VideoClip(frames=4, stride=4, size=32)


def video_loader(split, **changes):
    return open_loader(split, **{"clip": CLIP, "patch": 8, "batch_size": 4, "device": "cpu"} | changes)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"mask": masks.Tube},
            r"mask must be.*pass\ an\ instance,\ Tube\(\.\.\.\)",
        ),
        ({"mask": "tub"}, r"mask must be.*did\ you\ mean\ Tube\(\.\.\.\)\?"),
        ({"mask": 0.9}, "mask must be"),
        (
            {"mask": masks.WholeWords(ratio=0.5)},
            "needs words, but videos have only cuts, energy, flow, frames; use",
        ),
        ({"clip": {"frames": 16}}, "clip must be"),
        ({"fields": "caption"}, r"fields must be.*write\ \('caption',\)"),
        ({"views": "2"}, "views must be"),
        ({"batch_size": "8"}, "batch_size must be"),
        ({"batch_size": 8.0}, "batch_size must be"),
        ({"batch_size": True}, "batch_size must be"),
        ({"seed": None}, "seed must be"),
        ({"seed": "a"}, "seed must be"),
        ({"workers": -1}, "workers must be an integer of at least 0, got -1"),
        ({"prefetch": 0}, "prefetch must be an integer of at least 1 or None, got 0"),
        ({"threads": -1}, "threads must be an integer of at least 0 or None, got -1"),
        ({"threads": 0, "workers": 2}, "threads=0: each of the 2 workers needs a thread; pass threads=1"),
        ({"steps": 0}, "steps must be an integer of at least 1 or None, got 0"),
        ({"max_bad_fraction": 5}, "max_bad_fraction must be a number from 0 to 1, got 5"),
        ({"device": "tpu"}, "device='tpu' is not a device; use 'auto', 'cpu'"),
        ({"rank": 0, "world_size": 64}, "do not fill one global batch of 256; .*use fewer ranks"),
    ],
)
def test_wrong_values(split, given, said):
    with pytest.raises(ValueError, match=said):
        video_loader(split, **given)


@pytest.mark.parametrize(
    ("name", "said"),
    [("num_workers", "it is workers= here"), ("drop_last", "only full batches"), ("steeps", "did you mean 'steps'")],
)
def test_names_of_other_loaders(split, name, said):
    with pytest.raises(TypeError, match=rf"video_loader\(\) has no parameter {name!r}.*{said}"):
        video_loader(split, **{name: 4})


@pytest.mark.parametrize("location", [None, 3, {"a": 1}])
def test_a_split_is_a_path_or_a_url(location):
    with pytest.raises(ValueError, match=r"a split must be the path of a folder or a URL, got .*use `mix` for several"):
        video_loader(location)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: VideoClip(size=(64, 64)), "size must be"),
        (lambda: VideoClip(stride=2.5), "stride must be"),
        (lambda: AudioClip(seconds="1"), "seconds must be"),
        (
            lambda: masks.Tube(ratio="0.9"),
            "ratio must be",
        ),
        (lambda: masks.Random(ratio=[0.5, 0.9]), "ratio must be"),
        (lambda: image_loader("x", size=(32, 32)), "size must be"),
        (lambda: audio_loader("x", features="cqt"), "features must be"),
        (lambda: mix(["a", "b"]), "pairs, such as"),
        (
            lambda: mix([("a", 1)]),
            r"mix\(\) takes loaders or BatchSources, got 'a'; make one with",
        ),
        (lambda: Loader("a"), "Loader takes BatchSources, got 'a'"),
    ],
)
def test_wrong_types_where_they_are_made(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_numbers_of_numpy_are_numbers_and_positions_stay_json(split):
    loader = video_loader(split, batch_size=np.int64(2), seed=np.int64(3), mask=masks.Tube(ratio=np.float64(0.75)))
    assert (
        json.loads(json.dumps(loader.state_dict()))
        == video_loader(split, batch_size=2, seed=3, mask=masks.Tube(ratio=0.75)).state_dict()
    )


def test_what_is_changed_outside_changes_no_loader(split):
    weights = np.arange(11.0)
    loader = video_loader(split, weights=weights)
    saved = loader.state_dict()
    weights[:] = 1
    loader.state_dict()["data"]["clip"]["size"] = 1
    loader.state_dict()["data"].clear()
    assert loader.state_dict() == saved == video_loader(split, weights=np.arange(11.0)).state_dict()


@pytest.mark.parametrize("state", [None, "state.json", {}, {"epoch": 0}])
def test_what_is_no_position(split, state):
    with pytest.raises(ResumeError, match=r"a position must be a dict returned by state_dict\(\), got"):
        video_loader(split).load_state_dict(state)


def test_positions_are_whole_numbers(split):
    for wrong in (1.5, "1"):
        with pytest.raises(TypeError, match="integer"):
            video_loader(split).seek(wrong)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 says that threads are not copied
def test_an_iteration_does_not_go_on_in_a_fork(split):
    """Its threads are in the parent alone, so the child would wait forever."""
    batches = iter(video_loader(split))
    next(batches)
    if (child := os.fork()) == 0:
        try:
            next(batches)
        except RuntimeError as error:
            os._exit("began in a different process" in str(error))
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert next(batches).key


def test_a_device_that_is_not_there_is_named_before_a_batch_is_made(split):
    with pytest.raises(ValueError, match="device='cuda': torch finds no CUDA device on this machine; use 'auto' or"):
        next(iter(video_loader(split, device="cuda")))


def test_a_device_beyond_those_that_there_are_is_named(monkeypatch):
    with pytest.raises(ValueError, match="device='cuda:3': torch finds no CUDA device on this machine"):
        usable_device("cuda:3")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert str(usable_device("cuda:1")) == "cuda:1"
    with pytest.raises(ValueError, match=r"'cuda:3': torch finds 2 CUDA device.* numbered from 0; .* up to 'cuda:1'"):
        usable_device("cuda:3")


def test_an_unknown_field_of_weights_says_what_is_legal(split):
    with pytest.raises(ShardError, match=r"weights='balance', did you mean 'balanced'\?.*a \.csv or \.npy file"):
        video_loader(split, weights="balance")


def test_a_seed_is_a_number_wherever_a_split_is_opened(split):
    with pytest.raises(ValueError, match="seed must be"):
        VideoData(clip=CLIP).source(Split.open(split, "video", seed="x"))
