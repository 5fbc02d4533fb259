"""Converts weights and configs to and from `transformers.VideoMAEForPreTraining`.

Nothing here imports transformers: a model is given as a config dict and a state dict. Differences: transformers has
separate linear layers for query, key and value, a 3-D convolution instead of a linear layer over a cube's pixels, a
mask token of shape (1, 1, E), and predicts the values of a cube in (t h w c) order instead of (c t h w).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ...pipelines.masks import TokenGrid
from ...pipelines.modalities.video.batch import VideoBatch
from ..core.seeding import seeded
from ..tokens.video import VideoTokens
from .masked_autoencoder import AutoencoderConfig, MaskedAutoencoder
from .video_autoencoder import VideoAutoencoderConfig

HF_DECODER_EPS = 1e-5
"""The epsilon of the decoder's last norm, which transformers does not let one set."""

_ROOT = {
    "encoder.embed.0.bias": "videomae.embeddings.patch_embeddings.projection.bias",
    "encoder.stacks.0.norm.of.0.weight": "videomae.layernorm.weight",
    "encoder.stacks.0.norm.of.0.bias": "videomae.layernorm.bias",
    "decoder.bridge.weight": "encoder_to_decoder.weight",
    "decoder.stack.norm.of.0.weight": "decoder.norm.weight",
    "decoder.stack.norm.of.0.bias": "decoder.norm.bias",
}
_BLOCK = {
    "norm1.of.0": "layernorm_before",
    "attention.out": "attention.output.dense",
    "norm2.of.0": "layernorm_after",
    "mlp.up": "intermediate.dense",
    "mlp.down": "output.dense",
}
_EMBED = "videomae.embeddings.patch_embeddings.projection.weight"
_HEAD = "decoder.head"
_QKV = "attention.attention"
_STACKS = {"encoder.stacks.0.blocks": "videomae.encoder.layer", "decoder.stack.blocks": "decoder.decoder_layers"}


def to_hf_config(model: MaskedAutoencoder[VideoBatch]) -> dict[str, Any]:
    """The keyword arguments of `transformers.VideoMAEConfig` for a video model."""
    c, tokens = model.config, _tokens(model)
    return {
        "num_frames": tokens.extent[0],
        "image_size": tokens.extent[1],
        "tubelet_size": tokens.patch[0],
        "patch_size": tokens.patch[1],
        "num_channels": 3,
        "hidden_size": c.width,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.heads,
        "intermediate_size": c.width * c.mlp_ratio,
        "decoder_hidden_size": c.decoder_width,
        "decoder_num_hidden_layers": c.decoder_depth,
        "decoder_num_attention_heads": c.decoder_heads,
        "decoder_intermediate_size": c.decoder_width * c.mlp_ratio,
        "layer_norm_eps": c.eps,
        "hidden_act": "gelu",
        "norm_pix_loss": True,
        "use_mean_pooling": False,
    }


def to_hf(model: MaskedAutoencoder[VideoBatch]) -> dict[str, Tensor]:
    """The state dict of `VideoMAEForPreTraining(VideoMAEConfig(**to_hf_config(model)))` with the model's weights."""
    state, tokens = model.state_dict(), _tokens(model)
    hf = {theirs: state[ours] for ours, theirs in _ROOT.items()}
    hf["mask_token"] = state["decoder.mask_token"][None, None]
    hf[_EMBED] = state["encoder.embed.0.weight"].reshape(-1, 3, *tokens.patch)
    for kind in ("weight", "bias"):
        head = state[f"decoder.head.0.{kind}"]
        hf[f"{_HEAD}.{kind}"] = head.reshape(3, -1, *head.shape[1:]).transpose(0, 1).reshape(head.shape)
    for ours, theirs in _block_names(model.config).items():
        for part, name in _BLOCK.items():
            for kind in ("weight", "bias"):
                hf[f"{theirs}.{name}.{kind}"] = state[f"{ours}.{part}.{kind}"]
        query, key, value = state[f"{ours}.attention.qkv.weight"].chunk(3)
        hf[f"{theirs}.{_QKV}.query.weight"] = query
        hf[f"{theirs}.{_QKV}.key.weight"] = key
        hf[f"{theirs}.{_QKV}.value.weight"] = value
        hf[f"{theirs}.{_QKV}.query.bias"] = state[f"{ours}.attention.q_bias"]
        hf[f"{theirs}.{_QKV}.value.bias"] = state[f"{ours}.attention.v_bias"]
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in hf.items()}


def from_hf(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> MaskedAutoencoder[VideoBatch]:
    """This package's model with the weights of a VideoMAEForPreTraining.

    config: its `config.to_dict()`, or the content of a config.json. state: its state dict, or the content of a
    model.safetensors. ValueError for an architecture that this package does not have.
    """
    _check(config)
    autoencoder = VideoAutoencoderConfig(
        width=config["hidden_size"],
        depth=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        decoder_width=config["decoder_hidden_size"],
        decoder_depth=config["decoder_num_hidden_layers"],
        decoder_heads=config["decoder_num_attention_heads"],
        mlp_ratio=config["intermediate_size"] // config["hidden_size"],
        eps=config["layer_norm_eps"],
        decoder_eps=HF_DECODER_EPS,
    )
    size, patch = config["image_size"], config["patch_size"]
    grid = TokenGrid.video(config["num_frames"], size, size, tubelet=config["tubelet_size"], patch=patch)
    with seeded(0):
        model = autoencoder.make({"video": grid})
    ours = {name: state[theirs] for name, theirs in _ROOT.items()}
    ours["decoder.mask_token"] = state["mask_token"].flatten()
    ours["encoder.embed.0.weight"] = state[_EMBED].flatten(1)
    for kind in ("weight", "bias"):
        head = state[f"{_HEAD}.{kind}"]
        ours[f"decoder.head.0.{kind}"] = head.reshape(-1, 3, *head.shape[1:]).transpose(0, 1).reshape(head.shape)
    for name, theirs in _block_names(autoencoder).items():
        for part, their_part in _BLOCK.items():
            for kind in ("weight", "bias"):
                ours[f"{name}.{part}.{kind}"] = state[f"{theirs}.{their_part}.{kind}"]
        qkv = [state[f"{theirs}.{_QKV}.{part}.weight"] for part in ("query", "key", "value")]
        ours[f"{name}.attention.qkv.weight"] = torch.cat(qkv)
        ours[f"{name}.attention.q_bias"] = state[f"{theirs}.{_QKV}.query.bias"]
        ours[f"{name}.attention.v_bias"] = state[f"{theirs}.{_QKV}.value.bias"]
    model.load_state_dict(ours)
    return model


def export_hf(model: MaskedAutoencoder[VideoBatch], folder: str | Path) -> None:
    """Writes config.json and model.safetensors, which `VideoMAEForPreTraining.from_pretrained(folder)` reads."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architectures": ["VideoMAEForPreTraining"], "model_type": "videomae", **to_hf_config(model)}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(to_hf(model), folder / "model.safetensors", metadata={"format": "pt"})


def _block_names(config: AutoencoderConfig[VideoBatch]) -> dict[str, str]:
    depths = (config.depth, config.decoder_depth)
    stacks = zip(_STACKS.items(), depths, strict=True)
    return {f"{ours}.{i}": f"{theirs}.{i}" for (ours, theirs), depth in stacks for i in range(depth)}


def _tokens(model: MaskedAutoencoder[VideoBatch]) -> VideoTokens:
    if not isinstance(model.tokens, VideoTokens) or len(set(model.tokens.extent[1:])) > 1:
        raise ValueError(
            f"transformers.VideoMAE takes square video, the model has {type(model.tokens).__name__} of {model.grids}"
        )
    return model.tokens


def _check(config: Mapping[str, Any]) -> None:
    legal = {
        "num_channels": 3,
        "qv_bias": True,
        "qkv_bias": True,
        "norm_pix_loss": True,
        "use_mean_pooling": False,
        "hidden_act": "gelu",
    }
    wrong = [
        f"{name}={config[name]!r} (legal: {value!r})"
        for name, value in legal.items()
        if config.get(name) not in (value, None)
    ]
    ratio, decoder_ratio = (
        config[f"{part}intermediate_size"] / config[f"{part}hidden_size"] for part in ("", "decoder_")
    )
    if ratio != decoder_ratio or ratio % 1:
        wrong.append(
            f"intermediate_size / hidden_size = {ratio:g}, in the decoder {decoder_ratio:g} (legal: one whole number)"
        )
    if wrong:
        raise ValueError("this VideoMAE config has no counterpart here: " + "; ".join(wrong))
