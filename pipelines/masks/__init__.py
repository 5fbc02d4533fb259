"""Masks: which tokens of a clip the encoder does not see, and which the decoder reconstructs.

A mask is a small frozen config, built once and used for every batch:

    grid = TokenGrid.video(16, 224, 224)                       # 8 x 14 x 14 tokens of 2 x 16 x 16
    mask = MotionGuided(ratio=0.9)
    batch = mask.draw(grid, draws)                             # a Draw per sample: its generator, and what it shows

`batch` is a `MaskBatch`: masked bool (B, N), True = hidden; visible, target int64 (B, count), sorted; weight float32.
A sample's mask depends only on its own `Draw` (draw.py), so it is the same in any batch.

Two questions, two parts. How much is a law's: a number, or an object that draws one for a view, a sample, a frame or a
batch (laws.py), or follows the progress of the run (laws_progress.py); counts are exact (see ratio.py for the
roundings). Where is a pattern's, one family a file:

    file               patterns                           axes of the grid         source
    random.py          Random                             any                      MAE, MAE-ST, Audio-MAE
    tube.py            Tube                               any, along one           VideoMAE; RGB and depth
    motion_guided.py   MotionGuided                       t h w; needs flow        MGMAE
    running_cell.py    RunningCell                        t h w                    VideoMAE V2, the decoder's part
    frames.py          Frames, PerFrame, Context          any, along one; t first  MAE-ST (time only), MaskViT
    block.py           Block                              h w; t h w               BEiT
    multi_block.py     MultiBlock                         t h w                    V-JEPA
    strips.py          Strips, FilledStrips               time freq; freq time     Audio-MAE, AVSiam
    box.py             Box                                h w; needs box           OneRef
    drop_and_mask.py   DropAndMask                        any                      MAGE
    voxel_aware.py     VoxelAware                         x y z; needs occupied    FastDiT-3D
    mesh_nodes.py      MeshNodes                          node                     MeshMask
    joints.py          Joints, Limbs                      frame joint              MPM
    tokens.py          Tokens                             token; needs words       MosaicBERT, PMLM
    words.py           WholeWords                         token; needs words       M3AE, RetroMAE
    by_class.py        ByClass                            token; words, classes    Learning Better Masking
    scored_first.py    ScoredFirst                        token; words, scores     OneRef
    top_scores.py      TopScores                          any; needs scores        Recursive ROAR

and masks made of masks: Dual (dual.py, VideoMAE V2), Padded (padded.py, for counts that differ), ByView, Shared and
Complementary (views.py: CropMAE, DMAE), Replace (replace.py, 80/10/10), DecoderRows (decoder_rows.py, RetroMAE), Joint
(joint.py, M3AE). Two are no masks of a grid: Spikes (spikes.py, elements of activations, Masked Spiking Transformer),
ComplexRatio (complex_ratio.py, a target for speech enhancement).

A new pattern is a subclass of `Mask` with one method, `hide`, which says for one view of a sample which tokens are
hidden, and a line in `MASKS`, the names that the command line knows.
"""

from __future__ import annotations

from collections.abc import Callable

from .core.base import Maps, Mask, mask_batch
from .core.draw import Cues, Draw, Scope
from .core.grid import TokenGrid
from .core.ratio import Fixed, Law, Ratio, RatioLaw, Rounding, hidden_count, visible_count
from .laws.progress import Linear, Piecewise, RatioDecay, SquaredCosine
from .laws.random import MaskGIT, MultiRatio, TruncatedNormal, Uniform, UniformCount
from .patterns.block import Block
from .patterns.box import Box
from .patterns.complex_ratio import ComplexRatio
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
from .patterns.running_cell import RunningCell
from .patterns.spikes import Spikes
from .patterns.strips import FilledStrips, Strips
from .patterns.top_scores import TopScores
from .patterns.tube import Tube
from .patterns.views import ByView, Complementary, Shared
from .patterns.voxel_aware import VoxelAware
from .text.batch import TextMaskBatch
from .text.by_class import ByClass, class_weights
from .text.decoder_rows import DecoderRows
from .text.feedback import Feedback, smoothed
from .text.replace import Replace
from .text.scored_first import ScoredFirst
from .text.tokens import Tokens
from .text.words import PADDING, SPECIAL, WholeWords

MASKS: dict[str, Callable[[], Mask]] = {
    "audio-mae": lambda: Random(ratio=0.8),
    "audio-mae-strips": Strips,
    "avsiam-audio": lambda: Padded(mask=FilledStrips(ratio=MultiRatio(name="audio"))),
    "avsiam-image": lambda: Padded(mask=Random(ratio=MultiRatio(name="image"))),
    "beit": lambda: Block(ratio=UniformCount(low=75, high=75)),
    "complementary": Complementary,
    "cropmae": lambda: Padded(mask=ByView(masks=(None, Random(ratio=0.985)))),
    "diffmavil": lambda: Random(ratio=Linear(start=0.9, end=0.8)),
    "dmae": lambda: Shared(mask=Random(ratio=0.75)),
    "fastdit-3d": lambda: Padded(mask=VoxelAware()),
    "frames": Frames,
    "lmd": lambda: Random(ratio=SquaredCosine()),
    "m3ae-image": lambda: Random(ratio=0.75),
    "m3ae-text": lambda: Padded(mask=WholeWords(ratio=0.15)),
    "mae": lambda: Random(ratio=0.75),
    "mage": DropAndMask,
    "maskgit": lambda: Padded(mask=Random(ratio=MaskGIT())),
    "maskvit": lambda: Padded(mask=Context(mask=PerFrame(ratio=Uniform()))),
    "mesh-mask": MeshNodes,
    "mosaicbert": lambda: Padded(mask=Tokens(ratio=0.3, each=True)),
    "motion-guided": MotionGuided,
    "mpm": Joints,
    "mpm-limbs": Limbs,
    "mrd": lambda: Padded(mask=Tokens(ratio=RatioDecay(), each=True)),
    "oneref": lambda: Padded(mask=Box()),
    "oneref-text": lambda: Padded(mask=ScoredFirst()),
    "pmlm": lambda: Padded(mask=Tokens(ratio=UniformCount())),
    "ptw": lambda: Padded(mask=ByClass()),
    "random": Random,
    "retromae": lambda: Padded(mask=DecoderRows()),
    "rgb-depth": lambda: Tube(ratio=0.75, axis="modality"),
    "roar": lambda: Padded(mask=TopScores()),
    "tube": Tube,
    "v-jepa": lambda: Padded(mask=ByView(masks=(MultiBlock(), MultiBlock(blocks=2, scale=(0.7, 0.7))))),
    "videomae2": Dual,
}
"""Masks by name, each with its paper's defaults."""

__all__ = [
    "H36M_LIMBS",
    "H36M_LIMB_PAIRS",
    "MASKS",
    "PADDING",
    "SPECIAL",
    "Block",
    "Box",
    "ByClass",
    "ByView",
    "Complementary",
    "ComplexRatio",
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
    "PerFrame",
    "Piecewise",
    "Random",
    "Ratio",
    "RatioDecay",
    "RatioLaw",
    "Replace",
    "Rounding",
    "RunningCell",
    "Scope",
    "ScoredFirst",
    "Shared",
    "Spikes",
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
