"""Counterparts of I-JEPA and V-JEPA 2 in transformers. Their encoder is the teacher here, as in the weights that the
authors published.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from maskstream.pipelines.stream.sampler import BatchT
from maskstream.train.nn.counterpart import Counterpart, TimmCounterpart, convert_to_ijepa, convert_to_timm
from maskstream.train.nn.encoder_decoder import VisibleEncoder
from maskstream.train.nn.media_tokens import ImageTokens, SpectrogramTokens, VideoTokens
from maskstream.train.nn.transformer import BlockSizes, Stack

from .model import Jepa
from .vjepa import ClipEncoder, ClipPredictor, RotaryPlaces, VideoJepa

_KINDS = ("weight", "bias")
_ROTARY = {
    "attention.proj": "attention.out",
    "mlp.fc1": "mlp.up",
    "mlp.fc2": "mlp.down",
    "norm1": "norm1.of.0",
    "norm2": "norm2.of.0",
}
"""Layers of a block of V-JEPA 2 by their names in transformers."""


def to_ijepa(model: Jepa[BatchT]) -> Counterpart:
    """Convert a model of images to IJepaModel, which has no predictor.

    Raises:
        ValueError: The model is for audio, or images are not square.
    """
    teacher, c = model.teacher, model.config
    tokens: object = model.tokens
    assert isinstance(teacher, VisibleEncoder)
    if not isinstance(tokens, ImageTokens):
        raise ValueError("transformers.IJepaModel supports images, got a model of spectrograms")
    return convert_to_ijepa(teacher, tokens, BlockSizes(c.depth, c.heads, c.mlp_ratio, c.eps))


def to_vjepa2(model: VideoJepa) -> Counterpart:
    """Convert a model of video to VJEPA2Model, encoder and predictor.

    Raises:
        ValueError: Clips are not square, or positions are added as in V-JEPA.
    """
    teacher, predictor, c = model.teacher, model.predictor, model.config
    tokens: object = model.tokens
    assert isinstance(teacher, ClipEncoder)
    assert isinstance(predictor, ClipPredictor)
    assert isinstance(tokens, VideoTokens)
    if not isinstance(teacher.places, RotaryPlaces):
        raise ValueError(
            "transformers.VJEPA2Model rotates queries and keys by their positions, but V-JEPA adds position embeddings"
        )
    if len(set(tokens.extent[1:])) > 1:
        raise ValueError(
            f"transformers.VJEPA2Model needs square clips, got {' x '.join(map(str, tokens.extent[1:]))} pixels"
        )
    state: dict[str, Tensor] = {}
    for of, stack in (("encoder", teacher.stack), ("predictor", predictor.stack)):
        state |= _convert_rotary_state(stack, of)
    embed = "encoder.embeddings.patch_embeddings.proj"
    state |= {
        f"{embed}.weight": teacher.embed.weight.view(c.width, 3, *tokens.patch),
        f"{embed}.bias": teacher.embed.bias,
    }
    for name, part in (("embeddings.predictor_embeddings", predictor.bridge), ("proj", predictor.head)):
        state |= {f"predictor.{name}.{kind}": getattr(part, kind) for kind in _KINDS}
    state["predictor.embeddings.mask_tokens"] = predictor.mask_tokens[:, None, None]
    config = {
        "patch_size": tokens.patch[1],
        "crop_size": tokens.extent[1],
        "frames_per_clip": tokens.extent[0],
        "tubelet_size": tokens.patch[0],
        "hidden_size": c.width,
        "in_chans": 3,
        "num_attention_heads": c.heads,
        "num_hidden_layers": c.depth,
        "mlp_ratio": c.mlp_ratio,
        "layer_norm_eps": c.eps,
        "pred_hidden_size": c.predictor_width,
        "pred_num_attention_heads": c.predictor_heads,
        "pred_num_hidden_layers": c.predictor_depth,
        "pred_num_mask_tokens": c.masks,
        "pred_mlp_ratio": c.mlp_ratio,
    }
    return Counterpart(
        name="VJEPA2Model",
        kind="vjepa2",
        config=config,
        state={name: own.detach().clone(memory_format=torch.contiguous_format) for name, own in state.items()},
        encoder="VJEPA2Model",
        call={"skip_predictor": True},
        pixels="pixel_values_videos",
    )


def to_timm(model: Jepa[BatchT]) -> TimmCounterpart:
    """Return the teacher of a model of images or spectrograms in timm's format."""
    teacher, tokens, c = model.teacher, cast(object, model.tokens), model.config
    assert isinstance(teacher, VisibleEncoder)
    assert isinstance(tokens, ImageTokens | SpectrogramTokens)
    return convert_to_timm(teacher, tokens, BlockSizes(c.depth, c.heads, c.mlp_ratio, c.eps))


HF: Mapping[type[nn.Module], Callable[[Any], Counterpart]] = {Jepa: to_ijepa, VideoJepa: to_vjepa2}
TIMM: Mapping[type[nn.Module], Callable[[Any], TimmCounterpart]] = {Jepa: to_timm}


def _convert_rotary_state(stack: Stack, of: str) -> dict[str, Tensor]:
    """Return the weights of the blocks and of the last norm."""
    state: dict[str, Tensor] = {}
    for i, block in enumerate(stack.blocks):
        own = dict(block.named_parameters())
        for kind in _KINDS:
            parts = zip(("query", "key", "value"), own[f"attention.qkv.{kind}"].chunk(3), strict=True)
            state |= {f"{of}.layer.{i}.attention.{name}.{kind}": part for name, part in parts}
            state |= {f"{of}.layer.{i}.{theirs}.{kind}": own[f"{ours}.{kind}"] for theirs, ours in _ROTARY.items()}
    return state | {f"{of}.layernorm.{kind}": stack.norm.get_parameter(f"of.0.{kind}") for kind in _KINDS}
