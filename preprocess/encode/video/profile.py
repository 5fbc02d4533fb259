"""The profiles `train`, `fast`, `copy` and `fps`, which define how videos are stored."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from maskstream.shards.config import Config
from maskstream.shards.limits import Bounds
from maskstream.shards.media.gop_notes import ANCHOR_STRIDE, ANCHORED

BLOCK = 16
"""The sides of stored videos are multiples of this, in pixels: the side of a macroblock of H.264."""

Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"]
FrameRate = Annotated[float, Bounds(min=0.1, max=240, note="frames per second")]
_SQUARED_ERROR = "psy=0:trellis=0"
"""Decisions for the least squared error instead of the sharpest image: fewer coefficients, and vectors that follow the
motion more closely.
"""
_FEW_BLOCKS = ":partitions=p8x8,i8x8"
"""No 4x4 intra blocks and no halves of 8x8 blocks in B-frames."""

ProfileName = Literal["train", "fast", "copy", "fps"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoProfile(Config):
    """How a video is stored.

    `train`: H.264 in closed GOPs of 32 frames with a fixed hierarchy. Every 4th frame is I or P, and the three B-frames
    between are never referenced, so a clip of stride 4 decodes a quarter of the frames. With one reference frame, the
    motion vectors of a P-frame point exactly 4 frames back. `fast`: the same with fewer bytes and kinds of blocks, so
    that decoding and encoding cost less. `fps`: closed GOPs at a low rate, without the hierarchy. `copy`: the source's
    packets, unchanged; the other fields are not used.

    Attributes:
        name: Kind of profile.
        short_side: Short side in pixels; videos are never upscaled, and both sides are multiples of BLOCK (convert.py).
        crf: x264's constant rate factor.
        preset: x264's preset.
        keyint: Frames of a GOP.
        fps: Frames per second; None keeps the source's rate.
        energy: Whether the profiles `train` and `fast` store the energy of every 4th frame's cells for
            `masks.ByEnergy(energy="stored")`.
    """

    version: ClassVar[int] = 7  # 7: crf 20.3; 6: sides are multiples of 16; 5: flow into each GOP; 3: squared error

    name: ProfileName = "train"
    short_side: Annotated[int, Bounds(min=BLOCK, multiple=BLOCK)] = 256
    crf: Annotated[float, Bounds(min=0, max=51)] = 20.3
    preset: Preset = "medium"
    keyint: Annotated[int, Bounds(min=ANCHOR_STRIDE, multiple=ANCHOR_STRIDE)] = 32
    fps: FrameRate | None = None
    energy: bool = False

    def validate(self) -> None:
        if (self.name == "fps") != (self.fps is not None):
            raise ValueError(
                f"fps={self.fps} with profile {self.name!r}: fps must be set for profile 'fps' and None for others"
            )
        if self.energy and self.name not in ANCHORED:
            raise ValueError(
                f"energy=true with profile {self.name!r}: only the profiles {' and '.join(ANCHORED)} store token "
                "energy; use profile train"
            )

    @property
    def x264_params(self) -> str:
        """x264 options of this profile; with one encoder thread, the bytes depend only on the frames."""
        gop = f"keyint={self.keyint}:min-keyint={self.keyint}:scenecut=0:open-gop=0:ref=1:threads=1"
        if self.name == "fps":
            return gop
        decisions = _SQUARED_ERROR + (_FEW_BLOCKS if self.name == "fast" else "")
        return f"bframes={ANCHOR_STRIDE - 1}:b-adapt=0:b-pyramid=none:{gop}:{decisions}"


PROFILES: dict[str, VideoProfile] = {
    "train": VideoProfile(),
    "fast": VideoProfile(name="fast", crf=22.5),
    "copy": VideoProfile(name="copy"),
    "fps": VideoProfile(name="fps", fps=7.5, keyint=16, crf=24),
}
"""The default profiles; `dataclasses.replace(PROFILES["train"], crf=18)` changes a field."""
