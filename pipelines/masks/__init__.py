"""Masks: which tokens of a sample the encoder does not see, and which the decoder reconstructs.

A mask is a small frozen config, built once and used for every batch:

    grid = TokenGrid.video(16, 224, 224)                       # 8 x 14 x 14 tokens of 2 x 16 x 16
    mask = MotionGuided(ratio=0.9)
    batch = mask.draw(grid, draws)                             # a Draw per sample: its generator, and what it shows

`batch` is a `MaskBatch`: masked bool (B, N), True = hidden; visible, target int64 (B, count), sorted; weight float32.
A sample's mask depends only on its own `Draw` (core/draw.py), so it is the same in any batch.

A law says how many tokens are hidden: a number, or an object that draws a ratio or a count for a view, a sample, a
frame or a batch (laws/random.py), or follows the progress of the run (laws/progress.py). Counts are exact;
core/ratio.py has the roundings. A pattern says which tokens: one family a file in patterns/, and those of text in
text/. Some patterns are made of others: `Dual`, `PartDecoded`, `Padded` for counts that differ, `ByView`, `Shared`,
`Complementary`, `Replace`, `DecoderRows`, and `Joint` for samples of several parts.

A new pattern is a subclass of `Mask` with one method, `hide`, which says for one view of a sample which tokens are
hidden. Its file declares the schemes of papers that it draws (see core/scheme.py); its line in `SCHEMES` gives them to
the command line, the gallery, docs/masks.md and the benchmark.
"""

from __future__ import annotations

from collections.abc import Callable

from maskstream.pipelines.masks.core.draw import TokenGrid
from maskstream.pipelines.masks.patterns.block import Box
from maskstream.pipelines.masks.patterns.dual import PartDecoded, RunningCell
from maskstream.pipelines.masks.text.by_class import ScoredFirst
from maskstream.pipelines.masks.text.replace import DecoderRows
from maskstream.pipelines.masks.text.words import Tokens

from .core.base import Maps, Mask, mask_batch
from .core.draw import Cues, Draw, Scope
from .core.ratio import Fixed, Law, Ratio, RatioLaw, Rounding, hidden_count, visible_count
from .core.scheme import PaperLaw, Scheme
from .laws import LAWS
from .laws.progress import Linear, Piecewise, RatioDecay, SquaredCosine
from .laws.random import MaskGIT, MultiRatio, TruncatedNormal, Uniform, UniformCount
from .patterns import (
    block,
    drop_and_mask,
    dual,
    frames,
    joints,
    mesh_nodes,
    motion_guided,
    multi_block,
    random,
    strips,
    top_scores,
    tube,
    views,
    voxel_aware,
)
from .patterns.block import Block
from .patterns.drop_and_mask import DropAndMask
from .patterns.dual import Dual
from .patterns.frames import Context, Frames, PerFrame
from .patterns.joint import Joint
from .patterns.joints import H36M_LIMB_PAIRS, H36M_LIMBS, Joints, Limbs
from .patterns.mesh_nodes import MeshNodes, Submesh, submesh
from .patterns.motion_guided import MotionGuided
from .patterns.multi_block import MultiBlock
from .patterns.padded import Padded
from .patterns.random import Random
from .patterns.strips import FilledStrips, Strips
from .patterns.top_scores import TopScores
from .patterns.tube import Tube
from .patterns.views import ByView, Complementary, Shared
from .patterns.voxel_aware import VoxelAware
from .text import by_class, replace, words
from .text.batch import TextMaskBatch
from .text.by_class import ByClass, class_weights
from .text.feedback import Feedback, smoothed
from .text.replace import Replace
from .text.words import PADDING, SPECIAL, WholeWords

SCHEMES: tuple[Scheme, ...] = (
    *tube.SCHEMES,
    *random.SCHEMES,
    *motion_guided.SCHEMES,
    *dual.SCHEMES,
    *frames.SCHEMES,
    *multi_block.SCHEMES,
    *block.SCHEMES,
    *views.SCHEMES,
    *drop_and_mask.SCHEMES,
    *strips.SCHEMES,
    *voxel_aware.SCHEMES,
    *mesh_nodes.SCHEMES,
    *joints.SCHEMES,
    *words.SCHEMES,
    *replace.SCHEMES,
    *by_class.SCHEMES,
    *top_scores.SCHEMES,
)
"""The schemes of the papers, as the files of the patterns declare them: a new file is a line here."""

MASKS: dict[str, Callable[[], Mask]] = {s.name: s.make for s in sorted(SCHEMES, key=lambda s: s.name) if s.name}
"""Masks by name, each with its paper's settings."""

__all__ = [
    "H36M_LIMBS",
    "H36M_LIMB_PAIRS",
    "LAWS",
    "MASKS",
    "PADDING",
    "SCHEMES",
    "SPECIAL",
    "Block",
    "Box",
    "ByClass",
    "ByView",
    "Complementary",
    "Context",
    "Cues",
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
    "Law",
    "Limbs",
    "Linear",
    "Maps",
    "Mask",
    "MaskGIT",
    "MeshNodes",
    "MotionGuided",
    "MultiBlock",
    "MultiRatio",
    "Padded",
    "PaperLaw",
    "PartDecoded",
    "PerFrame",
    "Piecewise",
    "Random",
    "Ratio",
    "RatioDecay",
    "RatioLaw",
    "Replace",
    "Rounding",
    "RunningCell",
    "Scheme",
    "Scope",
    "ScoredFirst",
    "Shared",
    "SquaredCosine",
    "Strips",
    "Submesh",
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
