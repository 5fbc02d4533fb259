"""Masks: choose the tokens that the encoder does not see and the tokens that the decoder reconstructs.

A mask is a small frozen config, built once and used for every batch:

    grid = TokenGrid.video(16, 224, 224)                       # 8 x 14 x 14 tokens of 2 x 16 x 16
    mask = MotionGuided(ratio=0.9)
    batch = mask.draw(grid, draws)                             # one Draw per sample: random generator, mask inputs

`batch` is a `MaskBatch`: masked bool (B, N), True = hidden; visible and target int64 (B, count), sorted; weight
float32. A sample's mask depends only on its own `Draw` (core/draw.py), so it is the same in any batch.

A ratio schedule (`RatioSchedule`) determines how many tokens are hidden. It is a number, an object that draws a ratio
or a count per view, sample, frame or batch (`schedules/random.py`), or a function of the run's progress
(`schedules/progress.py`). Counts are exact; core/ratio.py defines the roundings. A pattern determines which tokens are
hidden: there is one file per family in patterns/, and text patterns are in text/. Some patterns wrap others: `Dual`,
`PartDecoded`, `Padded` (for unequal counts), `ByView`, `Shared`, `Complementary`, `Replace`, `DecoderRows`, and `Joint`
for samples with several parts.

To add a pattern, subclass `Mask` and implement `hide`, which returns the hidden tokens of one view. Declare the papers'
schemes in the same file (see core/scheme.py) and add a line to schemes.py; the command line, the gallery, docs/masks.md
and the benchmark then list them.
"""

from typing import TYPE_CHECKING

from .core import (
    Cues,
    Draw,
    Fixed,
    Maps,
    Mask,
    MaskBatch,
    PaperSchedule,
    ProportionSchedule,
    Ratio,
    RatioSchedule,
    Rounding,
    Scheme,
    Scope,
    TokenGrid,
    hidden_count,
    mask_batch,
    visible_count,
)

if TYPE_CHECKING:
    from .collate import Collate, TextCollate
    from .patterns.block import Block, Box
    from .patterns.curriculum import Curriculum
    from .patterns.dual import DropAndMask, Dual, PartDecoded, RunningCell
    from .patterns.energy import ByEnergy
    from .patterns.frames import Context, Frames, PerFrame, Tube
    from .patterns.joints import H36M_LIMB_PAIRS, H36M_LIMBS, Joints, Limbs
    from .patterns.motion_guided import MotionGuided
    from .patterns.multi_block import MultiBlock
    from .patterns.padded import Joint, Padded
    from .patterns.random import Random
    from .patterns.shapes import MeshNodes, Submesh, VoxelAware, submesh
    from .patterns.strips import FilledStrips, Strips
    from .patterns.target_blocks import BlockMaskBatch, TargetBlocks
    from .patterns.top_scores import TopScores
    from .patterns.views import ByView, Complementary, Shared
    from .schedules import SCHEDULES
    from .schedules.progress import Linear, Piecewise, RatioDecay, SquaredCosine, SquareRoot
    from .schedules.random import MaskGIT, MultiRatio, Stratified, TruncatedNormal, Uniform, UniformCount
    from .schemes import MASKS, SCHEMES
    from .text.by_class import ByClass, ScoredFirst, class_weights
    from .text.diffusion import MaskedDiffusion
    from .text.feedback import Feedback, smoothed
    from .text.replace import DecoderRows, Replace, TextMaskBatch
    from .text.words import PADDING, SPECIAL, Tokens, WholeWords
else:
    from maskstream.shards.lazy import lazy_names

    __getattr__ = lazy_names(
        __name__,
        {
            "collate": "Collate TextCollate",
            "schedules": "SCHEDULES",
            "schedules.progress": "Linear Piecewise RatioDecay SquaredCosine SquareRoot",
            "schedules.random": "MaskGIT MultiRatio Stratified TruncatedNormal Uniform UniformCount",
            "patterns.block": "Block Box",
            "patterns.curriculum": "Curriculum",
            "patterns.dual": "DropAndMask Dual PartDecoded RunningCell",
            "patterns.energy": "ByEnergy",
            "patterns.frames": "Context Frames PerFrame Tube",
            "patterns.joints": "H36M_LIMB_PAIRS H36M_LIMBS Joints Limbs",
            "patterns.motion_guided": "MotionGuided",
            "patterns.multi_block": "MultiBlock",
            "patterns.padded": "Joint Padded",
            "patterns.random": "Random",
            "patterns.shapes": "MeshNodes Submesh VoxelAware submesh",
            "patterns.strips": "FilledStrips Strips",
            "patterns.target_blocks": "BlockMaskBatch TargetBlocks",
            "patterns.top_scores": "TopScores",
            "patterns.views": "ByView Complementary Shared",
            "schemes": "MASKS SCHEMES",
            "text.by_class": "ByClass ScoredFirst class_weights",
            "text.diffusion": "MaskedDiffusion",
            "text.feedback": "Feedback smoothed",
            "text.replace": "DecoderRows Replace TextMaskBatch",
            "text.words": "PADDING SPECIAL Tokens WholeWords",
        },
        former={"LAWS": "SCHEDULES", "Law": "RatioSchedule", "RatioLaw": "ProportionSchedule"},
    )

__all__ = [
    "H36M_LIMBS",
    "H36M_LIMB_PAIRS",
    "MASKS",
    "PADDING",
    "SCHEDULES",
    "SCHEMES",
    "SPECIAL",
    "Block",
    "BlockMaskBatch",
    "Box",
    "ByClass",
    "ByEnergy",
    "ByView",
    "Collate",
    "Complementary",
    "Context",
    "Cues",
    "Curriculum",
    "DecoderRows",
    "Draw",
    "DropAndMask",
    "Dual",
    "Feedback",
    "FilledStrips",
    "Fixed",
    "Frames",
    "Joint",
    "Joints",
    "Limbs",
    "Linear",
    "Maps",
    "Mask",
    "MaskBatch",
    "MaskGIT",
    "MaskedDiffusion",
    "MeshNodes",
    "MotionGuided",
    "MultiBlock",
    "MultiRatio",
    "Padded",
    "PaperSchedule",
    "PartDecoded",
    "PerFrame",
    "Piecewise",
    "ProportionSchedule",
    "Random",
    "Ratio",
    "RatioDecay",
    "RatioSchedule",
    "Replace",
    "Rounding",
    "RunningCell",
    "Scheme",
    "Scope",
    "ScoredFirst",
    "Shared",
    "SquareRoot",
    "SquaredCosine",
    "Stratified",
    "Strips",
    "Submesh",
    "TargetBlocks",
    "TextCollate",
    "TextMaskBatch",
    "TokenGrid",
    "Tokens",
    "TopScores",
    "TruncatedNormal",
    "Tube",
    "Uniform",
    "UniformCount",
    "VoxelAware",
    "WholeWords",
    "class_weights",
    "hidden_count",
    "mask_batch",
    "smoothed",
    "submesh",
    "visible_count",
]
