"""One file with a trained model: weights, and the config that rebuilds it, as safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save

from .durable import write_durably
from .models.masked_autoencoder import AutoencoderConfig, MaskedAutoencoder
from .models.video_tokens import VideoTokens, VideoTokensConfig


def save_model(model: MaskedAutoencoder, path: str | Path, about: Mapping[str, str] | None = None) -> None:
    """Writes a video model's weights to `path`, with its configs and `about` (such as recipe and step) as metadata."""
    if not isinstance(model.tokens, VideoTokens):
        raise ValueError(f"models of video tokens can be saved, got one of {type(model.tokens).__name__}")
    metadata = {
        **(about or {}),
        "format": "pt",
        "model": json.dumps(asdict(model.config)),
        "tokens": json.dumps(asdict(model.tokens.config)),
    }
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_durably(Path(path), save(weights, metadata=metadata))


def load_model(path: str | Path) -> MaskedAutoencoder:
    """The model that `save_model` wrote, on the CPU, in eval mode. ValueError where the file is not of that kind."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if not {"model", "tokens"} <= metadata.keys():
        raise ValueError(f"{path} has no model config in its metadata; it was not written by `save_model`")
    tokens = VideoTokens(VideoTokensConfig(**json.loads(metadata["tokens"])))
    model = MaskedAutoencoder(AutoencoderConfig(**json.loads(metadata["model"])), tokens)
    model.load_state_dict(load_file(path))
    return model.eval()
