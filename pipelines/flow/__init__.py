"""Backward optical flow: the position of each part of a frame in the frame sampled before it.

    source   file        of       CPU ms per pair at 224    requirements
    Codec    codec.py    a clip   about 0.05                the `train` profile, strides 4, 8, 12 from a multiple of 4
    Dis      dis.py      a clip   about 0.5                 the clip's pixels
    Lk       lk.py       a batch  about 5, or a device      the batch's pixels
    Raft     raft.py     a batch  a device                  the batch's pixels, weights, torchvision
    Ofa      ofa.py      a batch  the GPU's flow engine     the batch's pixels on CUDA, DALI; not yet run on a GPU

All compute backward flow in pixels of the output clip, on a grid of cells: a `ClipFlow` for a clip, a `Flow` for a
batch. A loader's `flow=` accepts them by name or as configs, as well as user-defined `SampleFlow` and `BatchFlow`
classes (source.py, choice.py). `codec_flow` and `dis_flow` are the functions behind the first two.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import ClipFlow, grid_shape, stack_flow
    from .choice import FLOWS, FlowChoice
    from .codec import ask_for_vectors, codec_flow, motion_vectors, steps_between
    from .dis import dis_flow
    from .lk import Lk
    from .ofa import Ofa
    from .picture import flow_to_image, read_flo, read_kitti, write_flo, write_kitti
    from .raft import Raft
    from .source import BatchFlow, Codec, DecodedClip, Dis, FlowSource, SampleFlow
else:
    from maskstream.shards.lazy import lazy_names

    __getattr__ = lazy_names(
        __name__,
        {
            "base": "ClipFlow grid_shape stack_flow",
            "choice": "FLOWS FlowChoice",
            "codec": "ask_for_vectors codec_flow motion_vectors steps_between",
            "dis": "dis_flow",
            "lk": "Lk",
            "ofa": "Ofa",
            "picture": "flow_to_image read_flo read_kitti write_flo write_kitti",
            "raft": "Raft",
            "source": "BatchFlow Codec DecodedClip Dis FlowSource SampleFlow",
        },
    )

__all__ = [
    "FLOWS",
    "BatchFlow",
    "ClipFlow",
    "Codec",
    "DecodedClip",
    "Dis",
    "FlowChoice",
    "FlowSource",
    "Lk",
    "Ofa",
    "Raft",
    "SampleFlow",
    "ask_for_vectors",
    "codec_flow",
    "dis_flow",
    "flow_to_image",
    "grid_shape",
    "motion_vectors",
    "read_flo",
    "read_kitti",
    "stack_flow",
    "steps_between",
    "write_flo",
    "write_kitti",
]
