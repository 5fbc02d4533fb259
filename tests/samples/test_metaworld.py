"""Simulated clips: the same each time, different for each seed, and of policies that do their tasks."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from maskstream.preprocess import make_shards
from maskstream.preprocess.datasets import named_dataset
from maskstream.preprocess.encode.video.encoder import VideoEncoder
from maskstream.preprocess.source import RejectError, Source
from maskstream.samples.video import metaworld as episodes
from maskstream.samples.video.metaworld import Episode, render, started, task_names
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.manifest import Manifest

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""Of a renderer that could not be made, where nothing can be drawn."""
SMALL = Episode(task="drawer-open-v3", seed=5, frames=3, every=8, side=32)


@pytest.fixture(scope="module")
def drawn() -> list[np.ndarray]:
    """The frames of SMALL; skips where nothing can be drawn."""
    try:
        return render(SMALL)
    except DatasetError as error:
        pytest.skip(str(error))


def test_without_the_package_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episodes, "VERSION", "99.0")
    with pytest.raises(DatasetError, match=r"metaworld 99\.0, .* is installed: pip install 'maskstream\[metaworld\]'"):
        named_dataset("metaworld")(tmp_path)


@pytest.fixture(scope="module")
def tasks() -> tuple[str, ...]:
    """The names of all tasks; skips where mujoco finds no library to draw with, without which it cannot be imported."""
    try:
        return task_names()
    except DatasetError as error:
        pytest.skip(str(error))


@pytest.mark.skipif(find_spec("metaworld") is None, reason="metaworld is not installed")
def test_without_a_library_to_draw_with_the_error_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "metaworld.policies", None)
    with pytest.raises(DatasetError, match=r"cannot draw here \(.*metaworld\.policies.*\); .* libegl1"):
        task_names()


@pytest.mark.usefixtures("tasks")
def test_where_nothing_can_be_drawn_the_error_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import mujoco

    def renderer(*_: object) -> None:
        raise RuntimeError("no display")

    monkeypatch.setattr(mujoco, "Renderer", renderer)
    with pytest.raises(DatasetError, match=r"cannot draw here \(no display\); .* libegl1"):
        render(SMALL)


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"every": 0}, {"frames": 252}, {"side": 33}])
def test_an_episode_that_cannot_be_drawn_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="frames and every must be at least 1"):
        replace(Episode(task="reach-v3", seed=0), **wrong)


def test_an_episode_is_the_same_each_time_and_another_for_another_seed(drawn: list[np.ndarray]) -> None:
    assert [frame.shape for frame in drawn] == [(32, 32, 3)] * 3
    assert all(frame.dtype == np.uint8 and frame.std() > 20 for frame in drawn)
    assert np.abs(drawn[0].astype(int) - drawn[2]).max() > 50  # the arm moves
    np.testing.assert_array_equal(render(SMALL), drawn)
    other = render(replace(SMALL, seed=6, frames=1))
    assert np.abs(other[0].astype(int) - drawn[0]).max() > 20  # the drawer stands elsewhere
    np.testing.assert_array_equal(render(replace(SMALL, frames=1))[0], drawn[0])


def test_every_task_is_a_label_in_both_splits_and_every_source_has_its_own_seed(
    tasks: tuple[str, ...], tmp_path: Path
) -> None:
    found = named_dataset("metaworld")(tmp_path)
    assert len(found.label_names) == len(tasks) == 50
    assert {split: len(sources) for split, sources in found.splits.items()} == {"train": 200, "val": 50}
    every = [source for sources in found.splits.values() for source in sources]
    assert len({source.meta["episode"]["seed"] for source in every}) == len({source.id for source in every}) == 250
    for sources in found.splits.values():
        assert {source.label for source in sources} == set(range(50))
    assert all(found.label_names[source.label] in source.id for source in every)


def episodes_of(task: str, root: Path) -> Iterator[tuple[str, Episode]]:
    """The episodes of a task in the dataset, each with its split."""
    for split, sources in named_dataset("metaworld")(root).splits.items():
        yield from ((split, Episode(**s.meta["episode"])) for s in sources if s.meta["episode"]["task"] == task)


@pytest.mark.slow
@pytest.mark.usefixtures("tasks")
@pytest.mark.parametrize("task", ["drawer-open-v3", "pick-place-v3", "button-press-v3"])
def test_no_two_clips_of_a_task_share_a_start(task: str, tmp_path: Path) -> None:
    starts = [started(episode)[1] for _, episode in episodes_of(task, tmp_path)]
    assert len(starts) == 5
    apart = [np.abs(a - b).max() for i, a in enumerate(starts) for b in starts[:i]]
    assert min(apart) > 1e-3


@pytest.mark.slow
def test_policies_do_their_tasks_before_the_last_frame(tasks: tuple[str, ...]) -> None:
    """They see the goal: without it most of them fail."""
    done = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for task in tasks[::5]:
            episode = Episode(task=task, seed=1)
            scene, seen = started(episode)
            policy = episodes._import_policies()[task]()
            done[task] = False
            for _ in range((episode.frames - 1) * episode.every):
                seen, _, _, _, facts = scene.step(policy.get_action(seen))
                done[task] |= bool(facts["success"])
    assert sum(done.values()) >= 9, done


@pytest.mark.slow
def test_shards_of_simulated_clips(drawn: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = import_module("maskstream.samples.video.metaworld")
    monkeypatch.setattr(dataset, "task_names", lambda: ("drawer-open-v3",))
    monkeypatch.setattr(dataset, "EPISODES", {"train": 2, "val": 1})
    make_shards("metaworld", tmp_path, tmp_path / "out", workers=0)
    train = Manifest.load(tmp_path / "out" / "train")
    assert sorted(train.label.tolist()) == [0, 0]
    assert len(Manifest.load(tmp_path / "out" / "val")) == 1


def test_annotations_of_a_file_are_no_episode(tmp_path: Path) -> None:
    source = Source(id="a", path=tmp_path / "a.mp4", meta={"episode": {"task": SMALL.task, "seed": 1}})
    with pytest.raises(RejectError, match="cannot be read"):
        VideoEncoder().encode(source)
