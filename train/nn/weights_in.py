"""Loads models that others trained: folders of transformers, and the authors' .pth files of VideoMAE and MAE."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from maskstream.pipelines.masks import TokenGrid
from maskstream.pipelines.modalities.image.data import image_grid
from maskstream.train.core.export import read_foreign
from maskstream.train.core.model import Grids

from .hf import build_with, from_hf
from .layouts import DECODER, ENCODER, HEAD, Layout, find_layout
from .masked_autoencoder import AutoencoderConfig, ImageAutoencoderConfig, MaskedAutoencoder, VideoAutoencoderConfig

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
"""The heads of the encoders that the authors published, by width."""
DECODER_HEADS = {("video", 192): 3, ("video", 384): 6, ("video", 512): 8, ("video", 640): 8, ("image", 512): 16}
"""The heads of their decoders."""
FRAMES, SIZE = 16, 224
"""The clips of VideoMAE's checkpoints, which have no positions that would say it."""


def load_hf(folder: str | Path) -> MaskedAutoencoder[Any]:
    """The model of a folder that transformers wrote, with config.json and weights, on the CPU, in eval mode.

    VideoMAEForPreTraining and ViTMAEForPreTraining can be read. ValueError for others, DamageError for files that
    cannot be read.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing; give a folder that transformers wrote, with config.json")
    return from_hf(json.loads(path.read_text()), read_foreign(folder)).eval()


def load_pth(path: str | Path, *, heads: int | None = None, decoder_heads: int | None = None) -> MaskedAutoencoder[Any]:
    """The model of a pre-training checkpoint of VideoMAE's or MAE's authors, on the CPU, in eval mode.

    Sizes are those of the tensors. heads, decoder_heads: needed for widths that the authors did not publish. A file of
    VideoMAE is of 16 frames at 224 pixels. Only tensors are read, no pickled code. ValueError for another layout or a
    file without a decoder, DamageError for a file that cannot be read.
    """
    found = find_layout(read_foreign(path))
    if found is None:
        raise ValueError(f"{path} has other weights than VideoMAE's or MAE's; convert it to one of these")
    layout, state = found
    weights = layout.to_ours(state)
    if f"{HEAD}.weight" not in weights:
        raise ValueError(f"{path} has an encoder only; give it to a run as initial weights (--initial)")
    config, grids = (_video if layout.cubes else _image)(layout, state, weights, heads, decoder_heads)
    return build_with(config, grids, state).eval()


def _video(
    layout: Layout, state: Mapping[str, Tensor], weights: Mapping[str, Tensor], heads: int | None, decoder: int | None
) -> tuple[AutoencoderConfig[Any], Grids]:
    tubelet, patch = state[f"{layout.embed}.weight"].shape[2:4]
    sizes = _sizes(layout, state, weights, heads, decoder, "video")
    return VideoAutoencoderConfig(**sizes), {"video": TokenGrid.video(FRAMES, SIZE, SIZE, tubelet=tubelet, patch=patch)}


def _image(
    layout: Layout, state: Mapping[str, Tensor], weights: Mapping[str, Tensor], heads: int | None, decoder: int | None
) -> tuple[AutoencoderConfig[Any], Grids]:
    patch = state[f"{layout.embed}.weight"].shape[2]
    side = isqrt(state[layout.positions[0]].shape[1] - 1)
    sizes = _sizes(layout, state, weights, heads, decoder, "image")
    config = ImageAutoencoderConfig(**sizes, class_token=True, bridge_bias=True, positions="columns")
    return config, {"image": image_grid(side * patch, patch)}


def _sizes(
    layout: Layout,
    state: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    heads: int | None,
    decoder_heads: int | None,
    kind: str,
) -> dict[str, Any]:
    (decoder_width, width), hidden = weights["decoder.bridge.weight"].shape, weights[f"{ENCODER}.0.mlp.up.bias"]
    heads = HEADS.get(width) if heads is None else heads
    decoder_heads = DECODER_HEADS.get((kind, decoder_width)) if decoder_heads is None else decoder_heads
    if heads is None or decoder_heads is None:
        raise ValueError(
            f"the authors published no model of width {width} with a decoder of width {decoder_width}; give heads= and "
            "decoder_heads="
        )
    return {
        "width": width,
        "depth": layout.depth(state, ENCODER),
        "heads": heads,
        "decoder_width": decoder_width,
        "decoder_depth": layout.depth(state, DECODER),
        "decoder_heads": decoder_heads,
        "mlp_ratio": len(hidden) // width,
    }
