"""LeRobot itself, in a Python of its own, because it wants an older PyAV: writes a dataset in v3.0, or reads its items.

PYTHON lerobot_itself.py write RAW.npz ROOT           what `robot.recorded` made, by LeRobotDataset.create
PYTHON lerobot_itself.py read ASKED.json ROOT OUT.npz   every item of LeRobotDataset(delta_timestamps=ASKED)
"""

import json
import sys
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

REPOSITORY, FPS = "tests/robot", 30


def write(raw: str, root: str) -> None:
    """Features and tasks are named in the file: NUMBER/feature, (T, ...) each, and NUMBER/task."""
    held = np.load(raw)
    episodes: dict[int, dict[str, np.ndarray]] = {}
    for name in held.files:
        number, _, feature = name.partition("/")
        episodes.setdefault(int(number), {})[feature] = held[name]
    features = {}
    for name, array in episodes[0].items():
        names = ["height", "width", "channels"] if "images" in name else None
        if name != "task":
            dtype = "video" if "images" in name else array.dtype.name
            features[name] = {"dtype": dtype, "shape": array.shape[1:], "names": names}
    dataset = LeRobotDataset.create(REPOSITORY, fps=FPS, features=features, root=root, vcodec="h264")
    for _, one in sorted(episodes.items()):
        for step in range(len(one["action"])):
            dataset.add_frame({name: one[name][step] for name in features} | {"task": str(one["task"])})
        dataset.save_episode()
    dataset.finalize()


def read(asked: str, root: str, out: str) -> None:
    """All items, stacked by name: (N, ...); pictures as float32 in [0, 1]."""
    delta_timestamps = json.loads(Path(asked).read_text())
    dataset = LeRobotDataset(REPOSITORY, root=root, delta_timestamps=delta_timestamps, video_backend="pyav")
    items = [dataset[i] for i in range(len(dataset))]
    np.savez(out, **{name: np.stack([np.asarray(one[name]) for one in items]) for name in items[0]})


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](*sys.argv[2:])
