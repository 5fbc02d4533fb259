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

from collections.abc import Callable

from .collate import Collate, TextCollate
from .core import (
    Cues,
    Draw,
    Fixed,
    Law,
    Maps,
    Mask,
    MaskBatch,
    PaperLaw,
    Ratio,
    RatioLaw,
    Rounding,
    Scheme,
    Scope,
    TokenGrid,
    hidden_count,
    mask_batch,
    visible_count,
)
from .laws import LAWS
from .laws.progress import Linear, Piecewise, RatioDecay, SquaredCosine, SquareRoot
from .laws.random import MaskGIT, MultiRatio, Stratified, TruncatedNormal, Uniform, UniformCount
from .patterns import (
    block,
    curriculum,
    dual,
    energy,
    frames,
    joints,
    motion_guided,
    multi_block,
    random,
    shapes,
    strips,
    target_blocks,
    top_scores,
    views,
)
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
from .text import by_class, diffusion, replace, words
from .text.by_class import ByClass, ScoredFirst, class_weights
from .text.diffusion import MaskedDiffusion
from .text.feedback import Feedback, smoothed
from .text.replace import DecoderRows, Replace, TextMaskBatch
from .text.words import PADDING, SPECIAL, Tokens, WholeWords

SCHEMES: tuple[Scheme, ...] = (
    *frames.SCHEMES,
    *random.SCHEMES,
    *motion_guided.SCHEMES,
    *energy.SCHEMES,
    *dual.SCHEMES,
    *multi_block.SCHEMES,
    *target_blocks.SCHEMES,
    *curriculum.SCHEMES,
    *block.SCHEMES,
    *views.SCHEMES,
    *strips.SCHEMES,
    *shapes.SCHEMES,
    *joints.SCHEMES,
    *words.SCHEMES,
    *replace.SCHEMES,
    *diffusion.SCHEMES,
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
    "Law",
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
