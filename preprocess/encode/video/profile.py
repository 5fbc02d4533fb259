"""The profiles `train`, `fast`, `copy` and `fps`, which say how videos are stored."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from maskstream.shards.config import Config
from maskstream.shards.media.gop_notes import ANCHOR_STRIDE, ANCHORED

BLOCK = 16
"""The sides of stored videos are multiples of this, in pixels: the side of a macroblock of H.264."""

_X264_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
_SQUARED_ERROR = "psy=0:trellis=0"
"""Decisions for the least squared error instead of the sharpest picture: fewer coefficients, and vectors that follow
the motion more closely."""
_FEW_BLOCKS = ":partitions=p8x8,i8x8"
"""No 4x4 intra blocks and no halves of 8x8 blocks in B-frames."""

ProfileName = Literal["train", "fast", "copy", "fps"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoProfile(Config):
    """How a video is stored.

    `train`: H.264 in closed GOPs of 32 frames with a fixed hierarchy. Every 4th frame is I or P, and the three B-frames
    between are never referenced, so a clip of stride 4 decodes a quarter of the frames. With one reference frame, the
    motion vectors of a P-frame point exactly 4 frames back. `fast`: the same with fewer bytes and kinds of blocks, so
    that decoding and encoding cost less. `fps`: closed GOPs at a low rate, without the hierarchy. `copy`: the
    source's packets, unchanged; the other fields are not used.

    short_side: pixels; videos are never upscaled, and both sides are multiples of BLOCK (convert.py). crf, preset:
    those of x264. keyint: frames. fps: frames per second; None keeps the source's rate. energy: whether the profiles
    `train` and `fast` store the energy of every 4th frame's cells for `masks.ByEnergy(energy="stored")`.
    """

    version: ClassVar[int] = 7  # 7: crf 20.3; 6: sides are multiples of 16; 5: flow into each GOP; 3: squared error

    name: ProfileName = "train"
    short_side: int = 256
    crf: float = 20.3
    preset: str = "medium"
    keyint: int = 32
    fps: float | None = None
    energy: bool = False

    def validate(self) -> None:
        if self.name not in get_args(ProfileName):
            raise ValueError(f"profile {self.name!r} is not one of {', '.join(map(repr, get_args(ProfileName)))}")
        if self.short_side < BLOCK or self.short_side % BLOCK:
            raise ValueError(f"short_side={self.short_side} must be a multiple of {BLOCK} pixels, such as 256")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf={self.crf} is not in 0 (lossless) to 51 (worst)")
        if self.preset not in _X264_PRESETS:
            raise ValueError(f"preset={self.preset!r} is not one of {', '.join(_X264_PRESETS)}")
        if self.keyint < ANCHOR_STRIDE or self.keyint % ANCHOR_STRIDE:
            raise ValueError(
                f"keyint={self.keyint} must be a positive multiple of {ANCHOR_STRIDE}, the hierarchy's period in frames"
            )
        if (self.name == "fps") != (self.fps is not None):
            raise ValueError(
                f"fps={self.fps} with profile {self.name!r}: profile 'fps' takes a rate, the others take None"
            )
        if self.energy and self.name not in ANCHORED:
            raise ValueError(
                f"energy=true with profile {self.name!r}: only the profiles {' and '.join(ANCHORED)} store the energy "
                "of tokens; use profile train"
            )
        if self.fps is not None and not 0.1 <= self.fps <= 240:
            raise ValueError(f"fps={self.fps} is not in 0.1 to 240 frames per second")

    @property
    def x264_params(self) -> str:
        """The x264 options of this profile; with one encoder thread the bytes depend on the frames alone."""
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
