"""Which flow the clips of a split get."""

from __future__ import annotations

from typing import Literal

from ...flow.codec import ANCHOR_STRIDE
from ...masks import Mask
from .clip import VideoClip


def flow_source(flow: str, mask: Mask | None, clip: VideoClip, profile: str) -> Literal["codec", "dis"] | None:
    """Where the flow of clips comes from (see `VideoData`); ValueError where it cannot."""
    if flow not in ("auto", "none", "codec", "dis"):
        raise ValueError(f"flow={flow!r}; legal are 'auto', 'codec', 'dis' and 'none'")
    needed = mask is not None and "flow" in mask.needs
    if flow == "none" and needed:
        raise ValueError(f"{mask} needs flow, and flow='none' was given; use 'auto', 'codec' or 'dis'")
    if flow == "none" or (flow == "auto" and not needed):
        return None
    usable = profile == "train" and clip.stride == ANCHOR_STRIDE and (clip.align or 1) % ANCHOR_STRIDE == 0
    if flow == "codec" and not usable:
        raise ValueError(
            f"flow='codec' with shards of profile {profile!r}, stride {clip.stride}, align {clip.align}: motion "
            f"vectors are flow only in the profile 'train' at stride {ANCHOR_STRIDE} and align {ANCHOR_STRIDE}; "
            "use flow='dis'"
        )
    return "codec" if usable and flow != "dis" else "dis"
