"""Converts weights and configs to and from transformers' VideoMAEForPreTraining and ViTMAEForPreTraining.

Nothing here imports transformers: a model is given as a config dict and a state dict. layouts.py has the names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from maskstream.pipelines.masks import TokenGrid
from maskstream.pipelines.modalities.image.data import image_grid
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.train.core.model import Grids
from maskstream.train.core.process import seeded

from .image_tokens import ImageTokens
from .layouts import HF_IMAGE, HF_IMAGE_FILE, HF_VIDEO, Layout, layout_of
from .masked_autoencoder import AutoencoderConfig, ImageAutoencoderConfig, MaskedAutoencoder, VideoAutoencoderConfig
from .video_tokens import VideoTokens

HF_DECODER_EPS = 1e-5
"""The epsilon of the last norm of VideoMAE's decoder, which transformers does not let one set."""

_MAE = ("columns", True, False, True)
"""MAE's first axis of positions, class token, learnt positions and bias of the bridge."""


def to_hf_config(model: MaskedAutoencoder[BatchT]) -> dict[str, Any]:
    """The keyword arguments of `transformers.VideoMAEConfig` or `ViTMAEConfig` for a model of video or of pictures.

    ValueError for a model that transformers does not have.
    """
    c = model.config
    sizes = {
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
    }
    tokens = _tokens(model)
    if isinstance(tokens, ImageTokens):
        return {
            **sizes,
            "image_size": tokens.extent[0],
            "patch_size": tokens.patch[0],
            "norm_pix_loss": tokens.target == "normalised",
        }
    return {
        **sizes,
        "num_frames": tokens.extent[0],
        "image_size": tokens.extent[1],
        "tubelet_size": tokens.patch[0],
        "patch_size": tokens.patch[1],
        "use_mean_pooling": False,
    }


def to_hf(model: MaskedAutoencoder[BatchT]) -> dict[str, Tensor]:
    """The state dict of `VideoMAEForPreTraining(VideoMAEConfig(**to_hf_config(model)))` with the model's weights, or of
    `ViTMAEForPreTraining(ViTMAEConfig(**to_hf_config(model)))`.
    """
    return _named(model, HF_VIDEO if isinstance(_tokens(model), VideoTokens) else HF_IMAGE)


def from_hf(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> MaskedAutoencoder[Any]:
    """This package's model with the weights of a VideoMAEForPreTraining or a ViTMAEForPreTraining.

    config: its `config.to_dict()`, or the content of a config.json. state: its state dict, or the content of a
    model.safetensors. ValueError for an architecture that this package does not have.
    """
    found = layout_of(state)
    if found is None:
        raise ValueError(
            "these weights are neither a VideoMAEForPreTraining's nor a ViTMAEForPreTraining's, for example "
            f"{next(iter(state), 'none')!r}; give the files of one of them"
        )
    layout, _ = found
    _check(config, video=layout.cubes)
    autoencoder, grids = _video(config) if layout.cubes else _image(config)
    return build_with(autoencoder, grids, state)


def build_with(
    config: AutoencoderConfig[BatchT], grids: Grids, state: Mapping[str, Tensor]
) -> MaskedAutoencoder[BatchT]:
    """The model of a config and grids with these weights of others, on the CPU.

    ValueError if some are missing, or if fixed positions are others than this package's.
    """
    with seeded(0):
        model = config.make(grids)
    weights = model.own_names(state)
    missing = model.state_dict().keys() - weights.keys()
    if missing:
        raise ValueError(
            f"the weights have no {min(missing)!r} and {len(missing) - 1} more; give those of a whole pre-trained "
            "model, with its decoder"
        )
    model.to(weights[min(weights)].dtype).load_state_dict(weights)
    return model


def export_hf(model: MaskedAutoencoder[BatchT], folder: str | Path) -> None:
    """Writes config.json and model.safetensors, which `VideoMAEForPreTraining.from_pretrained(folder)` reads; for a
    model of pictures, `ViTMAEForPreTraining.from_pretrained(folder)`.
    """
    video = isinstance(_tokens(model), VideoTokens)
    name, kind = ("VideoMAEForPreTraining", "videomae") if video else ("ViTMAEForPreTraining", "vit_mae")
    config = {"architectures": [name], "model_type": kind, **to_hf_config(model)}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    state = _named(model, HF_VIDEO if video else HF_IMAGE_FILE)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _named(model: MaskedAutoencoder[BatchT], layout: Layout) -> dict[str, Tensor]:
    """The model's weights and fixed positions by the names of a layout."""
    state = layout.from_ours(model.state_dict(), _tokens(model).patch)
    for name, place in zip(layout.positions, (model.encoder.positions(), model.decoder.positions()), strict=False):
        state[name] = torch.cat((torch.zeros_like(place[:1]), place))[None]
    return state


def _video(config: Mapping[str, Any]) -> tuple[VideoAutoencoderConfig, Grids]:
    size, patch = config["image_size"], config["patch_size"]
    grid = TokenGrid.video(config["num_frames"], size, size, tubelet=config["tubelet_size"], patch=patch)
    return VideoAutoencoderConfig(**_sizes(config), decoder_eps=HF_DECODER_EPS), {"video": grid}


def _image(config: Mapping[str, Any]) -> tuple[ImageAutoencoderConfig, Grids]:
    autoencoder = ImageAutoencoderConfig(
        **_sizes(config),
        decoder_eps=config["layer_norm_eps"],
        class_token=True,
        bridge_bias=True,
        positions="columns",
        target="normalised" if config["norm_pix_loss"] else "pixels",
    )
    return autoencoder, {"image": image_grid(config["image_size"], config["patch_size"])}


def _sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "width": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "decoder_width": config["decoder_hidden_size"],
        "decoder_depth": config["decoder_num_hidden_layers"],
        "decoder_heads": config["decoder_num_attention_heads"],
        "mlp_ratio": config["intermediate_size"] // config["hidden_size"],
        "eps": config["layer_norm_eps"],
    }


def _tokens(model: MaskedAutoencoder[BatchT]) -> VideoTokens | ImageTokens:
    """The tokens of a model that transformers has."""
    tokens: object = model.tokens
    c = model.config
    if isinstance(tokens, VideoTokens) and len(set(tokens.extent[1:])) == 1:
        plain = (tokens.target, tokens.places, c.class_token, c.learnt, c.bridge_bias)
        if plain == ("normalised", "line", False, False, False):
            return tokens
    if isinstance(tokens, ImageTokens) and (tokens.first, c.class_token, c.learnt, c.bridge_bias) == _MAE:
        return tokens
    raise ValueError(
        "transformers.VideoMAE takes square video, normalised targets, positions on a line and no class token, and "
        "transformers.ViTMAE pictures with a class token, a bridge_bias and positions='columns'; got "
        f"{type(tokens).__name__} of {model.grids} and {c}"
    )


def _check(config: Mapping[str, Any], *, video: bool) -> None:
    legal = {"num_channels": 3, "qkv_bias": True, "hidden_act": "gelu"}
    if video:
        legal |= {"qv_bias": True, "norm_pix_loss": True, "use_mean_pooling": False}
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
        raise ValueError(
            f"this {'VideoMAE' if video else 'ViTMAE'} config has no counterpart here: " + "; ".join(wrong)
        )
