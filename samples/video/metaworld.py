"""Simulated clips of a robot arm at the 50 tasks of Meta-World, rendered while the shards are written.

The label is the task. A clip has 64 frames of 96 x 96 pixels at 40 frames per second, from the start of an episode;
most policies finish their task in this time. Each has a separate seed, which places objects and goal, so no two splits
share a start. It needs `pip install 'maskstream[metaworld]'`; nothing else is downloaded.

A scripted policy controls the arm. Source: Yu et al., Meta-World: A Benchmark and Evaluation for Multi-Task and Meta
Reinforcement Learning, CoRL 2019; the package metaworld (MIT). A seed determines where objects and goal are, and
nothing else is random. Without a GPU, MuJoCo renders on the CPU. Shadows, reflections and antialiasing are off,
because they take nine tenths of the time.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.encode.video.encoder import DrawnClip
from maskstream.preprocess.source import RejectError, Source
from maskstream.samples.packages import require_version
from maskstream.shards.arrays import UInt8s
from maskstream.shards.errors import DatasetError

NAME = "metaworld"
EPISODES = {"train": 4, "val": 1}
"""Number of episodes of each task in each split."""


def metaworld(root: Path) -> Dataset:
    """200 clips for train and 50 for val, 1.5 s each on one core. `root` is not used. Raises DatasetError if metaworld
    is not installed.
    """
    tasks = task_names()
    splits = {
        split: [
            Source(
                id=(own := f"{split}/{task}/{number:02d}"),
                path=root / own,
                label=label,
                meta={"episode": asdict(Episode(task=task, seed=hash_source_seed(own)))},
                computed=True,
                made_by=simulated,
            )
            for label, task in enumerate(tasks)
            for number in range(count)
        ]
        for split, count in EPISODES.items()
    }
    return Dataset(name=NAME, label_names=tuple(task.removesuffix("-v3") for task in tasks), splits=splits)


def simulated(source: Source) -> DrawnClip:
    """Record the episode of a source."""
    episode = Episode(**source.meta["episode"])
    return DrawnClip(frames=render(episode), fps=episode.fps)


def hash_source_seed(name: str) -> int:
    """Return the seed of a source, in 63 bits, from its name."""
    return int(xxhash.xxh3_64_intdigest(f"{NAME}/{name}".encode()) >> 1)


VERSION = "3.1.1"
"""Version of the package, which determines the rendered frames."""
NO_GL = (
    "MuJoCo cannot draw here ({}); on Debian `apt-get install libegl1 libgl1-mesa-dri` lets it draw without a screen "
    "or GPU, or with libosmesa6 installed set MUJOCO_GL=osmesa"
)
STEP_S = 0.0125
"""Time between two actions of a policy, in seconds."""
MAX_STEPS = 500
"""Maximum number of actions of an episode."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """An episode from its start: `frames` frames of `side` x `side` pixels, one every `every` actions of the policy.

    task: Name such as "drawer-open-v3". seed: Determines where objects and goal are. camera: Camera of the scene;
    images are rotated by half a turn, since Meta-World's cameras are upside down.
    """

    task: str
    seed: int
    frames: int = 64
    every: int = 2
    side: int = 96
    camera: str = "corner4"

    def __post_init__(self) -> None:
        if min(self.frames, self.every) < 1 or (self.frames - 1) * self.every > MAX_STEPS or self.side % 2:
            raise ValueError(
                f"frames and every must be at least 1, with at most {MAX_STEPS} actions between the first and the last "
                f"frame, and side even, got {self.frames}, {self.every}, {self.side}"
            )

    @property
    def fps(self) -> int:
        """Frames per second, rounded."""
        return round(1 / (self.every * STEP_S))


def task_names() -> tuple[str, ...]:
    """Return the names of the tasks, sorted. Raises DatasetError if metaworld is not installed in its `VERSION`, or
    cannot render.
    """
    return tuple(sorted(_import_policies()))


def render(episode: Episode) -> list[UInt8s]:
    """Yield the frames of an episode, uint8 (H, W, 3), RGB. They are identical each time on one machine; graphics
    drivers may differ by a few levels.

    Raises DatasetError if metaworld is not installed or nothing can be rendered, RejectError if the simulation
    diverges.
    """
    policy = _import_policies()[episode.task]()
    frames = []
    with warnings.catch_warnings():  # a policy warns about actions that it clips
        warnings.simplefilter("ignore")
        scene, seen = started(episode)
        with _make_renderer(scene, episode) as draw:
            for number in range(episode.frames):
                for _ in range(episode.every if number else 0):
                    seen = scene.step(policy.get_action(seen))[0]
                if not np.isfinite(seen).all():
                    raise RejectError("decode", f"diverges before frame {number} of {episode}")
                frames.append(draw())
    return frames


def started(episode: Episode) -> tuple[Any, Any]:
    """Return the scene of an episode at its start, and the observation of its policy, float64 (39,)."""
    _import_policies()
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    scene = ALL_V3_ENVIRONMENTS[episode.task]()
    # The settings of Meta-World's own environment factories: the seed draws a start, and the policy sees the goal.
    scene._freeze_rand_vec, scene.seeded_rand_vec = False, True
    scene._set_task_called, scene._partially_observable = True, False
    del scene.sawyer_observation_space
    scene.seed(episode.seed)
    return scene, scene.reset()[0]


@contextmanager
def _make_renderer(scene: Any, episode: Episode) -> Iterator[Any]:
    """A function that renders the current scene: uint8 (H, W, 3)."""
    import mujoco

    scene.model.vis.quality.offsamples = 0
    try:
        renderer = mujoco.Renderer(scene.model, episode.side, episode.side)
    except Exception as error:  # graphics libraries raise errors of their own
        raise DatasetError(NO_GL.format(error)) from error

    def draw() -> UInt8s:
        renderer.update_scene(scene.data, camera=episode.camera)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[flag] = 0
        return np.ascontiguousarray(renderer.render()[::-1, ::-1])

    try:
        yield draw
    finally:
        renderer.close()
        scene.close()


def _import_policies() -> dict[str, Any]:
    """Return the policy of each task. Raise DatasetError if metaworld or its rendering libraries are not installed."""
    require_version("metaworld", VERSION, work="episodes of Meta-World are simulated", extra="metaworld")
    os.environ.setdefault("MUJOCO_GL", "egl")  # read once, when mujoco is imported; its default needs a screen
    try:
        from metaworld.policies import ENV_POLICY_MAP
    except Exception as error:  # mujoco looks for the library of graphics when it is imported
        raise DatasetError(NO_GL.format(error)) from error

    return dict(ENV_POLICY_MAP)
