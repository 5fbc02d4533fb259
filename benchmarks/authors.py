"""The model of VideoMAE's authors, imported from a checkout of their repository, MCG-NJU/VideoMAE.

Their code is from 2022 and names modules of timm that are gone. The four functions that it takes from there stand here:
with no dropped paths and square pictures they do next to nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines import VideoBatch
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD
from maskstream.train.nn.layouts import AUTHORS_VIDEO
from maskstream.train.nn.masked_autoencoder import MaskedAutoencoder

PATCH = (2, 16, 16)


def authors_loss(
    folder: Path, ours: MaskedAutoencoder[VideoBatch], pixels: Tensor, masked: Tensor
) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Their small model with our weights, and its loss on clips float32 (B, T, 3, H, W), normalised, with masks bool
    (B, N): the mean squared error to cubes in [0, 1] that are normalised per channel, made without gradients as in
    their training loop. FileNotFoundError if the folder lacks their code.
    """
    if not (folder / "modeling_pretrain.py").exists():
        raise FileNotFoundError(f"{folder} has no modeling_pretrain.py; check out github.com/MCG-NJU/VideoMAE there")
    for name, members in _OLD_TIMM.items():
        module = sys.modules[name] = ModuleType(name)
        vars(module).update(members)
    sys.path.insert(0, str(folder))
    model: nn.Module = import_module("modeling_pretrain").pretrain_videomae_small_patch16_224(decoder_depth=4)
    model.load_state_dict(AUTHORS_VIDEO.from_ours(ours.state_dict(), PATCH))
    clips = pixels.transpose(1, 2).contiguous()

    def loss() -> Tensor:
        with torch.no_grad():
            wanted = _cubes(clips)[masked].reshape(len(clips), -1, 3 * 2 * 16 * 16)
        return F.mse_loss(model(clips, masked), wanted)

    return model, loss


def _cubes(clips: Tensor) -> Tensor:
    """The cubes of clips (B, 3, T, H, W), normalised by their moments: (B, N, values), in (t h w c) order."""
    mean, std = (torch.tensor(of).view(1, 3, 1, 1, 1) for of in (IMAGENET_MEAN, IMAGENET_STD))
    b, c, t, h, w = clips.shape
    pt, ph, pw = PATCH
    cut = (clips * std + mean).reshape(b, c, t // pt, pt, h // ph, ph, w // pw, pw)
    cubes = cut.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(b, -1, pt * ph * pw, c)
    centred = cubes - cubes.mean(dim=-2, keepdim=True)
    return (centred / (cubes.var(dim=-2, keepdim=True).sqrt() + 1e-6)).flatten(2)


def _truncated(tensor: Tensor, **about: float) -> Tensor:
    return nn.init.trunc_normal_(tensor, **about)


def _registered(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    return build


def _pair(side: int) -> tuple[int, int]:
    return side, side


def _kept(x: Tensor, rate: float = 0.0, training: bool = False) -> Tensor:
    """ValueError if paths are to be dropped."""
    if rate:
        raise ValueError(f"paths are dropped at a rate of {rate}; this benchmark drops none")
    return x


_OLD_TIMM: dict[str, dict[str, object]] = {
    "timm": {},
    "timm.models": {},
    "timm.models.layers": {"drop_path": _kept, "to_2tuple": _pair, "trunc_normal_": _truncated},
    "timm.models.registry": {"register_model": _registered},
}
