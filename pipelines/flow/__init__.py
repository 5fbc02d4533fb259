"""Backward optical flow: the position of each part of a frame in the frame sampled before it.

    source      file        cost per pair of frames at 224    requirements
    codec_flow  codec.py    about 0.01 ms                     the `train` profile, stride 4 from a multiple of 4
    dis_flow    dis.py      about 0.5 ms                      the clip's pixels

Both return a `ClipFlow`: backward flow in pixels of the output clip, on a grid of cells. `stack_flow` stacks those of a
batch into a `Flow`. A loader's `flow=` takes them as the configs `Codec` and `Dis`, a `SampleFlow` of one's own, or a
`BatchFlow`, which computes the flow of a whole batch on its device (source.py).
"""

from __future__ import annotations

from .base import ClipFlow, grid_shape, stack_flow
from .codec import ask_for_vectors, codec_flow, codec_flow_fits, motion_vectors
from .dis import dis_flow
from .source import FLOWS, BatchFlow, Codec, DecodedClip, Dis, FlowChoice, FlowSource, SampleFlow

__all__ = [
    "FLOWS",
    "BatchFlow",
    "ClipFlow",
    "Codec",
    "DecodedClip",
    "Dis",
    "FlowChoice",
    "FlowSource",
    "SampleFlow",
    "ask_for_vectors",
    "codec_flow",
    "codec_flow_fits",
    "dis_flow",
    "grid_shape",
    "motion_vectors",
    "stack_flow",
]
