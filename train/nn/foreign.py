"""Foreign models: weights and configs to and from transformers, and the .pth files of VideoMAE's and MAE's authors.

VideoMAEForPreTraining, ViTMAEForPreTraining and BertForMaskedLM are converted in both directions without importing
transformers: a model is a config dict and a state dict. layouts.py has the names of masked autoencoders, token_model.py
BERT's names and differences. An export has zeros for segments, unless the model has a vector of them.
"""

import json
from collections.abc import Mapping, Sequence
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskstream.pipelines.masks import TokenGrid
from maskstream.pipelines.modalities.image.data import compute_image_grid
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.train.core.model import Grids
from maskstream.train.core.process import seeded
from maskstream.train.core.weights import read_foreign

from .counterpart import Counterpart
from .layouts import DECODER, ENCODER, HEAD, HF_IMAGE, HF_IMAGE_FILE, HF_VIDEO, Layout, find_layout
from .masked_autoencoder import AutoencoderConfig, ImageAutoencoderConfig, MaskedAutoencoder, VideoAutoencoderConfig
from .media_tokens import ImageTokens, Targets, VideoTokens
from .token_model import BLOCK, LAYERS, OUTPUT, PARTS, ROOT, SEGMENTS, TokenModel, TokenModelConfig, convert_from_bert

HF_DECODER_EPS = 1e-5
"""The epsilon of the last norm of VideoMAE's decoder, which transformers does not let one set."""

_IMAGE = {"num_channels": 3, "qkv_bias": True, "hidden_act": "gelu"}
_VIDEO = {**_IMAGE, "qv_bias": True, "norm_pix_loss": True, "use_mean_pooling": False}
_BERT = {"hidden_act": "gelu", "is_decoder": False, "tie_word_embeddings": True, "position_embedding_type": "absolute"}
"""Allowed entries of a transformers config for a model that has a counterpart here."""
_RATIO = "intermediate_size / hidden_size"

SMALL = {
    "video": "videomae-small --set model.depth=2 --set model.width=96 --set model.heads=3 --set model.decoder_depth=1 "
    "--set clip.size=64 --set clip.frames=8",
    "image": "mae-base --set model.depth=2 --set model.width=96 --set model.heads=3 --set model.decoder_depth=1 "
    "--set data.size=64",
}
"""Small recipes whose models transformers has, by modality, as the words of a command."""

_MAE = ("columns", True, False, True, False)
"""MAE's positions (first axis), class token, learned positions, bias of the bridge and class token of the decoder."""


def to_hf_config(model: MaskedAutoencoder[BatchT]) -> dict[str, Any]:
    """Return the arguments of `transformers.VideoMAEConfig` or `ViTMAEConfig` for a model of video or images.

    Args:
        model: The model.

    Raises:
        ValueError: transformers has no such model.
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
    tokens = _convert_tokens(model)
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
    """Return the state dict of `VideoMAEForPreTraining(VideoMAEConfig(**to_hf_config(model)))` with the model's
    weights, or of `ViTMAEForPreTraining(ViTMAEConfig(**to_hf_config(model)))`.
    """
    return _named(model, HF_VIDEO if isinstance(_convert_tokens(model), VideoTokens) else HF_IMAGE)


def from_hf(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> MaskedAutoencoder[Any]:
    """Return this package's model with the weights of a VideoMAEForPreTraining or a ViTMAEForPreTraining.

    Args:
        config: `config.to_dict()`, or the content of a config.json.
        state: State dict, or the content of a model.safetensors.

    Raises:
        ValueError: This package does not have the architecture.
    """
    found = find_layout(state)
    if found is None:
        raise ValueError(
            f"these weights, such as {next(iter(state), 'none')!r}, are neither from VideoMAEForPreTraining nor from "
            "ViTMAEForPreTraining; pass the files of one of them"
        )
    layout, _ = found
    ratios = [config[f"{part}intermediate_size"] / config[f"{part}hidden_size"] for part in ("", "decoder_")]
    name, legal = ("VideoMAE", _VIDEO) if layout.cubes else ("ViTMAE", _IMAGE)
    wrong = f"{ratios[0]:g}, in the decoder {ratios[1]:g} (allowed: one whole number)"
    _refuse(name, config, legal, [] if ratios[0] == ratios[1] and ratios[0] % 1 == 0 else [f"{_RATIO} = {wrong}"])
    own_eps = HF_DECODER_EPS if layout.cubes else config["layer_norm_eps"]
    return build_with(*_autoencoder(config, own_eps, cubes=layout.cubes), state)


def build_with(
    config: AutoencoderConfig[BatchT], grids: Grids, state: Mapping[str, Tensor]
) -> MaskedAutoencoder[BatchT]:
    """Build a model, on the CPU, with foreign weights.

    Args:
        config: Config of the model.
        grids: Token grids.
        state: Weights by their foreign names.

    Raises:
        ValueError: Weights are missing, or fixed positions differ from this package's.
    """
    with seeded(0):
        model = MaskedAutoencoder(config, grids)
    weights = model.rename_weights(state)
    missing = model.state_dict().keys() - weights.keys()
    if missing:
        raise ValueError(
            f"the weights lack {min(missing)!r} and {len(missing) - 1} more; pass the weights of a complete "
            "pre-trained model with a decoder"
        )
    model.to(weights[min(weights)].dtype).load_state_dict(weights)
    return model


def convert_to_hf(model: MaskedAutoencoder[BatchT]) -> Counterpart:
    """Convert a model of video to VideoMAEForPreTraining, or of images to ViTMAEForPreTraining.

    Args:
        model: The model.

    Raises:
        ValueError: transformers has no such model.
    """
    config = to_hf_config(model)
    if isinstance(_convert_tokens(model), VideoTokens):
        return Counterpart(
            name="VideoMAEForPreTraining",
            kind="videomae",
            config=config,
            state=_named(model, HF_VIDEO),
            encoder="VideoMAEModel",
        )
    return Counterpart(
        name="ViTMAEForPreTraining",
        kind="vit_mae",
        config=config,
        state=_named(model, HF_IMAGE_FILE),
        encoder="ViTMAEModel",
        options={"mask_ratio": 0.0},
        class_tokens=1,
    )


def export_hf(model: MaskedAutoencoder[BatchT], folder: str | Path) -> None:
    """Write config.json and model.safetensors, which `from_pretrained(folder)` of VideoMAEForPreTraining or, for
    images, ViTMAEForPreTraining reads.

    Args:
        model: The model.
        folder: Folder to write to.
    """
    convert_to_hf(model).write(folder)


def _named(model: MaskedAutoencoder[BatchT], layout: Layout) -> dict[str, Tensor]:
    """Return the model's weights and fixed positions under the names of a layout."""
    state = layout.from_ours(model.state_dict(), _convert_tokens(model).patch)
    for name, place in zip(layout.positions, (model.encoder.positions(), model.decoder.positions()), strict=False):
        state[name] = torch.cat((torch.zeros_like(place[:1]), place))[None]
    return state


def _autoencoder(config: Mapping[str, Any], decoder_eps: float, *, cubes: bool) -> tuple[AutoencoderConfig[Any], Grids]:
    """Return the config and grids of a model of clips (`cubes`) or images from a transformers config."""
    sizes = {
        "width": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "decoder_width": config["decoder_hidden_size"],
        "decoder_depth": config["decoder_num_hidden_layers"],
        "decoder_heads": config["decoder_num_attention_heads"],
        "mlp_ratio": config["intermediate_size"] // config["hidden_size"],
        "eps": config["layer_norm_eps"],
        "decoder_eps": decoder_eps,
    }
    size, patch = config["image_size"], config["patch_size"]
    if cubes:
        grid = TokenGrid.video(config["num_frames"], size, size, tubelet=config["tubelet_size"], patch=patch)
        return VideoAutoencoderConfig(**sizes), {"video": grid}
    target: Targets = "normalised" if config["norm_pix_loss"] else "pixels"
    own = ImageAutoencoderConfig(**sizes, class_token=True, bridge_bias=True, positions="columns", target=target)
    return own, {"image": compute_image_grid(size, patch)}


def _convert_tokens(model: MaskedAutoencoder[BatchT]) -> VideoTokens | ImageTokens:
    """Return the model's tokens; raise ValueError if transformers has no such model."""
    tokens: object = model.tokens
    c = model.config
    if isinstance(tokens, VideoTokens) and len(set(tokens.extent[1:])) == 1:
        plain = (tokens.target, tokens.places, c.class_token, c.learnt, c.bridge_bias)
        if plain == ("normalised", "line", False, False, False):
            return tokens
    if isinstance(tokens, ImageTokens):
        plain_image = (tokens.places, c.class_token, c.learnt, c.bridge_bias, c.own_class)
        if plain_image == _MAE:
            return tokens
    what = ("target", "positions", "class_token", "learnt", "bridge_bias", "own_class")
    got = ", ".join(f"{name}={value!r}" for name, value in c.to_dict(defaults=True).items() if name in what)
    shapes = ", ".join(str(grid.shape) for grid in model.grids.values())
    raise ValueError(
        "transformers.VideoMAE takes square video, normalised targets, positions on a line and no class token, and "
        "transformers.ViTMAE takes images with a class token, a bridge_bias and positions='columns'; got "
        f"{type(tokens).__name__} of {shapes} with {got}; a small recipe that can be exported is "
        f"`{SMALL['image' if isinstance(tokens, ImageTokens) else 'video']}`"
    )


def _refuse(name: str, config: Mapping[str, Any], legal: Mapping[str, object], more: Sequence[str]) -> None:
    """Raise ValueError if a config has entries that are not allowed, or if there are `more` problems."""
    wrong = [
        f"{key}={config[key]!r} (allowed: {value!r})"
        for key, value in legal.items()
        if config.get(key) not in (value, None)
    ]
    if wrong or more:
        raise ValueError(f"this {name} config has no counterpart here: " + "; ".join([*wrong, *more]))


def to_bert_config(model: TokenModel) -> dict[str, Any]:
    """Return the arguments of `transformers.BertConfig` for a model; raise ValueError if it is not a BERT."""
    c = model.config
    if (c.positions, c.norm, c.gated) != ("learned", "post", False):
        raise ValueError(
            "transformers.BertForMaskedLM has positions='learned', norm='post' and gated=False, got "
            f"positions={c.positions!r}, norm={c.norm!r} and gated={c.gated}; such a model has no counterpart in "
            "transformers"
        )
    return {
        "vocab_size": c.vocabulary,
        "hidden_size": c.width,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.heads,
        "intermediate_size": c.width * c.mlp_ratio,
        "max_position_embeddings": model.embed.length,
        "layer_norm_eps": c.eps,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def to_bert(model: TokenModel) -> dict[str, Tensor]:
    """Return the state dict of `BertForMaskedLM(BertConfig(**to_bert_config(model)))` with the model's weights."""
    _ = to_bert_config(model)
    state = model.state_dict()
    hf = {theirs: state[ours] for ours, theirs in ROOT.items()}
    hf |= {theirs: state[ours] for theirs, ours in OUTPUT.items()}
    hf[SEGMENTS] = torch.zeros(2, model.config.width, dtype=state["embed.ids.weight"].dtype)
    if model.embed.segment is not None:
        hf[SEGMENTS][0] = state["embed.segment"]
    for i in range(model.config.depth):
        ours, theirs = f"blocks.{i}", f"{LAYERS}.{i}"
        for kind in ("weight", "bias"):
            for part, name in BLOCK.items():
                hf[f"{theirs}.{name}.{kind}"] = state[f"{ours}.{part}.{kind}"]
            for part, value in zip(PARTS, state[f"{ours}.attention.qkv.{kind}"].chunk(3), strict=True):
                hf[f"{theirs}.attention.self.{part}.{kind}"] = value
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in hf.items()}


def from_bert(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> TokenModel:
    """Return this package's model with the weights of a BertForMaskedLM, for documents of up to
    `max_position_embeddings`.

    Args:
        config: `config.to_dict()`, or the content of a config.json.
        state: State dict, or the content of a model.safetensors.

    Raises:
        ValueError: This package does not have the architecture.
    """
    ratio = config["intermediate_size"] / config["hidden_size"]
    _refuse("BERT", config, _BERT, [f"{_RATIO} = {ratio:g} (allowed: a whole number)"] if ratio % 1 else [])
    sizes = TokenModelConfig(
        vocabulary=config["vocab_size"],
        width=config["hidden_size"],
        depth=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        mlp_ratio=config["intermediate_size"] // config["hidden_size"],
        eps=config["layer_norm_eps"],
    )
    length = config["max_position_embeddings"]
    with seeded(0):
        model = TokenModel(sizes, {"text": TokenGrid(axes=("token",), shape=(length,), patch=(1,))})
    ours = convert_from_bert(state)
    model.to(ours["head.bias"].dtype).load_state_dict(ours)
    return model


def convert_to_bert(model: TokenModel) -> Counterpart:
    """Convert a text model to BertForMaskedLM; raise ValueError if it is not a BERT."""
    return Counterpart(
        name="BertForMaskedLM",
        kind="bert",
        config=to_bert_config(model),
        state={name: tensor for name, tensor in to_bert(model).items() if name not in OUTPUT},
        encoder="BertModel",
        options={"add_pooling_layer": False},
    )


def export_bert(model: TokenModel, folder: str | Path) -> None:
    """Write config.json and model.safetensors, which `BertForMaskedLM.from_pretrained(folder)` reads.

    Args:
        model: The model.
        folder: Folder to write to.
    """
    convert_to_bert(model).write(folder)


HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
"""The heads of the encoders that the authors published, by width."""
DECODER_HEADS = {("video", 192): 3, ("video", 384): 6, ("video", 512): 8, ("video", 640): 8, ("image", 512): 16}
"""The heads of their decoders."""
FRAMES, SIZE = 16, 224
"""The clips of VideoMAE's checkpoints, whose files have no positions that would reveal their size."""
EPS = 1e-6
"""The epsilon of all norms of the authors' models."""


def load_hf(folder: str | Path) -> MaskedAutoencoder[Any]:
    """Return the model of a folder written by transformers, on the CPU, in eval mode.

    Args:
        folder: Folder with config.json and weights of a VideoMAEForPreTraining or ViTMAEForPreTraining.

    Raises:
        ValueError: The architecture is a different one, or config.json is missing.
        RunFileError: A file cannot be read.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(f"{path} does not exist; pass a folder that transformers wrote, with config.json")
    return from_hf(json.loads(path.read_text()), read_foreign(folder)).eval()


def load_pth(path: str | Path, *, heads: int | None = None, decoder_heads: int | None = None) -> MaskedAutoencoder[Any]:
    """Return the model of a pre-training checkpoint of VideoMAE's or MAE's authors, on the CPU, in eval mode.

    Sizes are read from the tensors. A file of VideoMAE is assumed to have 16 frames at 224 pixels. Only tensors are
    read, no pickled code.

    Args:
        path: The .pth file.
        heads: Attention heads of the encoder; needed for widths that the authors did not publish.
        decoder_heads: Attention heads of the decoder; likewise.

    Raises:
        ValueError: The layout is a different one, or the decoder is missing.
        RunFileError: The file cannot be read.
    """
    found = find_layout(read_foreign(path))
    if found is None:
        raise ValueError(f"{path} does not contain VideoMAE or MAE weights; convert it to one of these")
    layout, state = found
    weights = layout.to_ours(state)
    if f"{HEAD}.weight" not in weights:
        raise ValueError(f"{path} contains only an encoder; pass it to a run as initial weights (--initial)")
    (decoder_width, width), hidden = weights["decoder.bridge.weight"].shape, weights[f"{ENCODER}.0.mlp.up.bias"]
    kind = "video" if layout.cubes else "image"
    heads = HEADS.get(width) if heads is None else heads
    decoder_heads = DECODER_HEADS.get((kind, decoder_width)) if decoder_heads is None else decoder_heads
    if heads is None or decoder_heads is None:
        raise ValueError(
            f"the authors published no model of width {width} with a decoder of width {decoder_width}; pass heads= and "
            "decoder_heads="
        )
    *tubelet, patch, _ = state[f"{layout.embed}.weight"].shape[2:]
    side = SIZE if layout.cubes else patch * isqrt(state[layout.positions[0]].shape[1] - 1)
    config = {
        "hidden_size": width,
        "num_hidden_layers": layout.depth(state, ENCODER),
        "num_attention_heads": heads,
        "decoder_hidden_size": decoder_width,
        "decoder_num_hidden_layers": layout.depth(state, DECODER),
        "decoder_num_attention_heads": decoder_heads,
        "intermediate_size": len(hidden),
        "layer_norm_eps": EPS,
        "norm_pix_loss": True,
        "num_frames": FRAMES,
        "tubelet_size": tubelet[0] if tubelet else 1,
        "image_size": side,
        "patch_size": patch,
    }
    return build_with(*_autoencoder(config, EPS, cubes=layout.cubes), state).eval()
