"""Recipes on trajectories: the waypoint where a person who walks as in the training split goes next.

maskstream train where2imagine-tiny --data data/shards/sample-trajectory/train --out runs/where
"""

from dataclasses import replace

from maskstream.pipelines.modalities.trajectory.batch import TrajectoryBatch
from maskstream.pipelines.modalities.trajectory.data import TrajectoryData
from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .model import WaypointConfig


def where2imagine_base() -> Recipe[TrajectoryBatch]:
    """ImagineNav's Where2Imagine (Zhao et al., ICLR 2025): the relative waypoint 2 s ahead, from four RGB-D frames,
    with ViT-S.

    No code was found. Sizes, horizon, data and losses are our own, as the abstract does not state them. The authors
    train on people who look for objects in houses; this recipe trains on any trajectories.
    """
    return Recipe(
        name="where2imagine-base",
        batch_size=256,
        data=TrajectoryData(clip=VideoClip(frames=4, stride=4, size=224)),
        model=WaypointConfig(),
        schedule=ScheduleConfig(base_lr=5e-4, min_lr=1e-6, warmup=0.05, epochs=100),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.05),
    )


def where2imagine_tiny() -> Recipe[TrajectoryBatch]:
    """Scaled down to two CPU cores: two frames of 64 x 64 pixels, 0.57 s apart in `sample-trajectory`, and their poses;
    3 blocks of width 96, 240 steps.

    On unseen maps, waypoints are also 21.7 degrees off; a linear map of speed and turn gives 22.4 degrees, going
    straight on at the same speed 0.468 m and 24.2 degrees.
    """
    return replace(
        where2imagine_base(),
        name="where2imagine-tiny",
        batch_size=32,
        data=TrajectoryData(clip=VideoClip(frames=2, stride=4, size=64)),
        model=WaypointConfig(width=96, depth=3, heads=3, motion=True),
        schedule=ScheduleConfig(base_lr=4e-3, min_lr=4e-5, warmup=0.05, steps=240),
        optimiser=OptimiserConfig(weight_decay=0.05, max_grad_norm=1.0),
    )
