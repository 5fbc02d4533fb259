"""One file with a trained model: weights, and the config that rebuilds it, as safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from ...shards.stores.publish import publish
from ..models.audiovisual_diffusion import AudioVisualDiffusion, AudioVisualDiffusionConfig
from ..models.dense_unet import DenseUNet, DenseUNetConfig
from ..models.masked_autoencoder import AutoencoderConfig, MaskedAutoencoder, Tokens
from ..models.mesh_network import MeshNetwork, MeshNetworkConfig
from ..models.point_autoencoder import PointAutoencoder, PointAutoencoderConfig
from ..models.siamese import Siamese, SiameseConfig
from ..models.voxel_diffusion import VoxelDiffusion, VoxelDiffusionConfig
from ..tokens.spectrogram import SpectrogramTokens, SpectrogramTokensConfig
from ..tokens.video import VideoTokens, VideoTokensConfig


@runtime_checkable
class Described(Protocol):
    """A model that can be rebuilt: `metadata` says its kind (a name of `KINDS`) and its configs, as JSON."""

    def metadata(self) -> dict[str, str]: ...


def save_model(model: nn.Module, path: str | Path, about: Mapping[str, str] | None = None) -> None:
    """Writes a model's weights to `path`, with its metadata and `about` (such as recipe and step)."""
    if not isinstance(model, Described) or model.metadata().get("kind") not in KINDS:
        raise ValueError(f"models of the kinds {', '.join(KINDS)} can be saved, got {type(model).__name__}")
    metadata = {**(about or {}), "format": "pt", **model.metadata()}
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    publish(Path(path), save(weights, metadata=metadata))


def load_model(path: str | Path) -> nn.Module:
    """The model that `save_model` wrote, on the CPU, in eval mode. ValueError where the file is not of that kind."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if "model" not in metadata:
        raise ValueError(f"{path} has no model config in its metadata; it was not written by `save_model`")
    kind = metadata.get("kind", "video")
    if kind not in KINDS:
        raise ValueError(f"{path} holds a model of the kind {kind!r}; this version knows {', '.join(KINDS)}")
    model = KINDS[kind](metadata)
    model.load_state_dict(load_file(path))
    return model.eval()


def begin_with(model: nn.Module, path: str | Path) -> list[str]:
    """Gives a model the weights in a safetensors file that it has under the same names and in the same shapes; the
    names of its parameters that keep their own. ValueError where the file cannot be read or nothing fits.
    """
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"initial weights {path} cannot be read ({error}); give a model.safetensors") from error
    own = model.state_dict()
    fitting = {name: w for name, w in weights.items() if name in own and own[name].shape == w.shape}
    if not fitting:
        raise ValueError(
            f"none of the weights in {path} fit a {type(model).__name__} of these sizes; use those of another run"
        )
    model.load_state_dict(fitting, strict=False)
    return [name for name in own if name not in fitting]


def _autoencoder(config: Callable[..., Any], tokens: Callable[[Any], Tokens], about: Mapping[str, str]) -> nn.Module:
    """A masked autoencoder of one kind of token."""
    cut = tokens(config(**json.loads(about["tokens"])))
    return MaskedAutoencoder(AutoencoderConfig(**json.loads(about["model"])), cut)


def _audiovisual(model: Callable[..., nn.Module], config: Callable[..., Any], about: Mapping[str, str]) -> nn.Module:
    """A model of video and spectrograms."""
    audio = SpectrogramTokensConfig(**json.loads(about["audio"]))
    return model(config(**json.loads(about["model"])), VideoTokensConfig(**json.loads(about["video"])), audio)


def _dense_unet(about: Mapping[str, str]) -> nn.Module:
    return DenseUNet(DenseUNetConfig(**json.loads(about["model"])))


KINDS: dict[str, Callable[[Mapping[str, str]], nn.Module]] = {
    "audio": partial(_autoencoder, SpectrogramTokensConfig, SpectrogramTokens),
    "audiovisual-diffusion": partial(_audiovisual, AudioVisualDiffusion, AudioVisualDiffusionConfig),
    "mesh": lambda about: MeshNetwork(MeshNetworkConfig(**json.loads(about["model"]))),
    "voxel-diffusion": lambda about: VoxelDiffusion(VoxelDiffusionConfig(**json.loads(about["model"]))),
    "points": lambda about: PointAutoencoder(PointAutoencoderConfig(**json.loads(about["model"]))),
    "siamese": partial(_audiovisual, Siamese, SiameseConfig),
    "dense-unet": _dense_unet,
    "video": partial(_autoencoder, VideoTokensConfig, VideoTokens),
}
"""How a model of each kind is rebuilt from the metadata of its file."""
