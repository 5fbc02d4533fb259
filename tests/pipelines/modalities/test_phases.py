"""Sizes and lengths that change over the run, in the loaders of all modalities that have phases."""

from dataclasses import replace
from functools import partial
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskstream.pipelines import (
    AudioClip,
    AudioData,
    AudioVisualData,
    ImageData,
    PoseClip,
    PoseData,
    TrajectoryData,
    VideoClip,
    VideoData,
    masks,
    mix,
)
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.loader import Loader
from maskstream.shards.errors import ResumeError

from ..contract import check_order
from ..every_modality import write_split
from ..small_media import sample_rows

STEPS, GLOBAL_BATCH = 8, 4


def by_steps(*points: tuple[float, float]) -> masks.Piecewise:
    """A schedule of level pieces: from each progress on the number beside it."""
    level = [((place, before), (place, value)) for (_, before), (place, value) in pairwise(points)]
    return masks.Piecewise(points=(points[0], *chain.from_iterable(level)))


HALVES, THIRDS = (0.0, 0.5), (0.0, 0.3, 0.7)
PHASED: dict[str, Any] = {
    "image": (
        ImageData(
            size=48, patch=8, mask=masks.Random(ratio=masks.Linear(start=0.5, end=0.8)),
            over_run={"size": by_steps((0, 16), (0.3, 32), (0.7, 48))},
        ),
        THIRDS,
        [{"size": 16}, {"size": 32}, {"size": 48}],
    ),
    "video": (
        VideoData(
            clip=VideoClip(frames=8, stride=4, size=32), patch=8, mask=masks.MotionGuided(ratio=0.75),
            over_run={"clip.frames": by_steps((0, 2), (0.5, 8)), "clip.size": by_steps((0, 16), (0.5, 32))},
        ),
        HALVES,
        [{"clip": VideoClip(frames=2, stride=4, size=16)}, {"clip": VideoClip(frames=8, stride=4, size=32)}],
    ),
    "audio": (
        AudioData(
            clip=AudioClip(seconds=0.64), mask=masks.Random(ratio=0.75),
            over_run={"clip.seconds": by_steps((0, 0.32), (0.5, 0.64))},
        ),
        HALVES,
        [{"clip": AudioClip(seconds=0.32)}, {"clip": AudioClip(seconds=0.64)}],
    ),
    "audiovisual": (
        AudioVisualData(
            clip=VideoClip(frames=4, stride=4, size=32), seconds=0.64, patch=8,
            video_mask=masks.MotionGuided(ratio=0.75), audio_mask=masks.Random(ratio=0.75),
            over_run={"clip.frames": by_steps((0, 2), (0.3, 4)), "seconds": by_steps((0, 0.32), (0.7, 0.64))},
        ),
        THIRDS,
        [
            {"clip": VideoClip(frames=2, stride=4, size=32), "seconds": 0.32},
            {"clip": VideoClip(frames=4, stride=4, size=32), "seconds": 0.32},
            {},
        ],
    ),
    "pose": (
        PoseData(
            clip=PoseClip(frames=12), mask=masks.Joints(frames=0.5, joints=5),
            over_run={"clip.frames": by_steps((0, 4), (0.5, 12)), "clip.stride": by_steps((0, 1), (0.5, 2))},
        ),
        HALVES,
        [{"clip": PoseClip(frames=4, stride=1)}, {}],
    ),
    "trajectory": (
        TrajectoryData(
            clip=VideoClip(frames=2, stride=4, size=32), ahead_s=0.5, patch=8, mask=masks.Tube(ratio=0.75),
            over_run={"clip.size": by_steps((0, 16), (0.5, 32))},
        ),
        HALVES,
        [{"clip": VideoClip(frames=2, stride=4, size=16)}, {}],
    ),
}  # fmt: skip


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] if name == "audiovisual" else []) for name in PHASED],
)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    return write_split(request.param, tmp_path_factory.mktemp(request.param)), PHASED[request.param]


def opened(data: Any, split: Path, **options: Any) -> Loader[Any]:
    own = {"seed": 3, "threads": 1, "device": "cpu", "batch_size": GLOBAL_BATCH, "steps": STEPS}
    return data.loader(split, **own | options)


def run_of(loader: Loader[Any], first: int = 0) -> list[list[list[Any]]]:
    loader.seek(*divmod(first, len(loader)))
    return [sample_rows(batch) for batch in islice(loader.repeat(), STEPS - first)]


def test_a_batch_is_that_of_a_loader_with_the_settings_of_its_phase(kind: tuple[Path, Any]) -> None:
    split, (data, starts, settings) = kind
    made = run_of(opened(data, split))
    plain = [run_of(opened(replace(data, over_run={}, **own), split)) for own in settings]
    phases = [int(np.searchsorted(starts, step / (STEPS - 1), side="right")) - 1 for step in range(STEPS)]
    assert len(set(phases)) == len(starts)
    for step, phase in enumerate(phases):
        assert made[step] == plain[phase][step]
    shown = sample_rows(next(iter(opened(data, split, shuffle=False))))
    assert shown == sample_rows(next(iter(opened(replace(data, over_run={}), split, shuffle=False))))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_ranks_and_a_resume_make_the_same_batches(kind: tuple[Path, Any], workers: int) -> None:
    split, (data, _, _) = kind
    run = partial(opened, data, split)
    state = check_order(run, batch_size=GLOBAL_BATCH, steps=STEPS, workers=workers)
    with pytest.raises(ResumeError, match=r"over_run|steps"):
        opened(replace(data, over_run={}), split).load_state_dict(state)
    with pytest.raises(ResumeError, match="steps"):
        opened(data, split, steps=STEPS + 1).load_state_dict(state)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split("image", tmp_path_factory.mktemp("pictures"))


def test_a_token_budget_shows_more_samples_while_they_are_small(pictures: Path) -> None:
    data = replace(PHASED["image"][0], mask=masks.Random(ratio=0.75))
    loader = opened(data, pictures, batch_size=1, token_budget=36)
    sizes = [(len(batch.key), batch.image.shape[1]) for batch in islice(loader.repeat(), STEPS)]
    assert sizes == [(36, 16)] * 3 + [(9, 32)] * 2 + [(4, 48)] * 3
    assert len({key for key, _ in sizes}) == 3


def test_parts_of_a_mixture_are_of_one_phase(pictures: Path) -> None:
    data = PHASED["image"][0]
    sources = [data.source(Split.open(pictures, "image", device="cpu", seed=seed)) for seed in (0, 1)]
    loader = Loader(mix([(one, 1) for one in sources]), batch_size=4, device="cpu", threads=1, steps=STEPS)
    sides = [batch.image.shape[1] for batch in islice(loader.repeat(), STEPS)]
    assert sides == [16] * 3 + [32] * 2 + [48] * 3
    other = replace(data, over_run={"size": by_steps((0, 16), (0.5, 48))})
    with pytest.raises(ValueError, match="over_run"):
        mix([(sources[0], 1), (other.source(Split.open(pictures, "image", device="cpu")), 1)])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"over_run": {"patch": by_steps((0, 8), (0.5, 16))}}, "'patch', which cannot change during a run; expected"),
        ({"over_run": {"size": by_steps((0, 16), (0.5, 40))}}, "size ends at 40, but size=48 is the value at the end"),
        (
            {"over_run": {"size": masks.Linear(start=16, end=48)}},
            "is not piecewise constant; use steps such as masks.Piecewise",
        ),
        ({"over_run": {"size": by_steps((0, 15), (0.5, 48))}}, "size=15 from progress 0 on: .*not divide into patches"),
        (
            {"over_run": {"size": by_steps((0, 16.5), (0.5, 48))}},
            "size must be",
        ),
        ({"targets": "somewhere"}, "targets= needs samples of a fixed size, but over_run changes it"),
    ],
)
def test_what_cannot_change_so_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PHASED["image"][0], **given)


def test_what_makes_one_size_is_refused(pictures: Path) -> None:
    for given in ({"backend": "dali"}, {"output": "yuv"}, {"output": "tokens"}):
        with pytest.raises(ValueError, match="over_run changes the size of batches, but backend="):
            replace(PHASED["video"][0], **given)
    with pytest.raises(ValueError, match="pass steps="):
        next(iter(opened(PHASED["image"][0], pictures, steps=None)))
    assert ImageData.from_dict(PHASED["image"][0].to_dict()) == PHASED["image"][0]
