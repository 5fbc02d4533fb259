"""Recipes of poses: MPM's masked pre-training, and the lifting of 2-D poses that follows it.

maskstream train mpm-tiny      --data .../train --out runs/masked
maskstream train mpm-lift-tiny --data .../train --out runs/lifted --initial runs/masked/model.safetensors
"""

from dataclasses import replace

from maskstream.pipelines.masks import Joints
from maskstream.pipelines.modalities.pose.batch import PoseBatch
from maskstream.pipelines.modalities.pose.data import PoseClip, PoseData
from maskstream.train.core.dropout import DropoutConfig
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .model import PoseModelConfig

TINY_MASKED_STEPS, TINY_LIFT_STEPS = 3000, 500
LEFT = 0.97**80
"""Remaining fraction of the rate after 80 epochs."""


def mpm() -> Recipe[PoseBatch]:
    """MPM (Zhang et al., 2023): clips of 243 frames of 16 joints, with 60 % of the frames hidden and 5 joints in each
    of the others, the same for all clips of a batch; 4 blocks of width 256; masked 2-D poses, masked 3-D poses, and
    lifting of masked 2-D poses at once.

    A learning rate of 1e-4 for 1,024 clips, multiplied by 0.97 after each epoch.

    Differences from the authors' code: cameras are drawn at load in every step (authors: Human3.6M's, and PoseAug's
    generator in half of the steps, with other task ratios in the rest); masks depend on seed and step (authors: system
    randomness); sinusoidal frame positions (authors: learned); joints are hidden before an MLP with one hidden layer
    (authors: with batch norms, dropout and residuals); decoders end in a norm and a linear layer (authors: a batch norm
    and a convolution); AdamW (authors: Adam with AMSGrad); 80 epochs (authors: unspecified).
    """
    return Recipe(
        name="mpm",
        batch_size=1024,
        data=PoseData(clip=PoseClip(frames=243, stride=2), joints=16, mask=Joints(frames=0.6, joints=5, scope="batch")),
        model=PoseModelConfig(published=True, dropout=DropoutConfig(hidden=0.1, inner=0.1, attention=0.1)),
        schedule=ScheduleConfig(base_lr=2.5e-5, min_lr=2.5e-5 * LEFT, warmup=0.0, epochs=80, shape="exponential"),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.0),
    )


def mpm_lift() -> Recipe[PoseBatch]:
    """The subsequent lifting of complete 2-D poses, at a learning rate of 7e-4 for 1,024 clips.

    Besides the differences of `mpm`, all frames are predicted at once (authors: the middle one, with strided blocks).
    """
    lift = lifting(mpm())
    return replace(lift, schedule=replace(lift.schedule, base_lr=1.75e-4, min_lr=1.75e-4 * LEFT))


def mpm_tiny() -> Recipe[PoseBatch]:
    """Scaled down to two CPU cores: clips of 9 frames of 17 joints, 120 ms apart, 3 blocks of width 128.

    After 1,000 steps the error is 137 mm. It lifts complete 2-D poses, which it never saw in training, with 144 mm
    (best linear map: 118 mm); use `mpm-lift-tiny` instead. The three tasks have equal weight; blocks use GELU and layer
    norms without dropout, and inputs are divided by their typical size.
    """
    return replace(
        mpm(),
        name="mpm-tiny",
        batch_size=64,
        data=PoseData(clip=PoseClip(frames=9, stride=6), mask=Joints(frames=0.6, joints=5, scope="batch")),
        model=PoseModelConfig(width=128, hidden=256, depth=3, heads=4, shares=(1.0, 1.0, 1.0)),
        schedule=ScheduleConfig(base_lr=1.6e-2, min_lr=1.6e-4, warmup=0.05, steps=TINY_MASKED_STEPS),
        optimiser=OptimiserConfig(weight_decay=0.05, max_grad_norm=1.0),
    )


def mpm_lift_tiny() -> Recipe[PoseBatch]:
    """Scaled down to two CPU cores: lifting after `mpm-tiny` or from scratch, 500 steps of 64 clips.

    From scratch the error (MPJPE) is 106 and 103 mm for two seeds, 10 and 12 % below the best linear map; from the
    weights of `mpm-tiny` it is 114 and 118 mm.
    """
    tiny = lifting(mpm_tiny())
    return replace(tiny, name="mpm-lift-tiny", schedule=replace(tiny.schedule, steps=TINY_LIFT_STEPS))


def lifting(masked: Recipe[PoseBatch]) -> Recipe[PoseBatch]:
    """Return the lifting recipe that follows the pre-training `masked`, with the same network and data, without
    masks.
    """
    if not isinstance(masked.model, PoseModelConfig) or not isinstance(masked.data, PoseData):
        raise ValueError(f"lifting needs a recipe with a PoseModelConfig and PoseData, got {masked.model}")
    return replace(
        masked,
        name=f"{masked.name}-lift",
        data=replace(masked.data, mask=None),
        model=replace(masked.model, task="lift"),
    )
