"""Models: the masked autoencoder and the kinds of token that it reads."""

from ..tokens.spectrogram import SpectrogramTokens, SpectrogramTokensConfig
from ..tokens.video import VideoTokens, VideoTokensConfig
from .hf import export_hf, from_hf, to_hf, to_hf_config
from .masked_autoencoder import AutoencoderConfig, MaskedAutoencoder, Tokens
from .mesh_network import MeshNetwork, MeshNetworkConfig

__all__ = [
    "AutoencoderConfig",
    "MaskedAutoencoder",
    "MeshNetwork",
    "MeshNetworkConfig",
    "SpectrogramTokens",
    "SpectrogramTokensConfig",
    "Tokens",
    "VideoTokens",
    "VideoTokensConfig",
    "export_hf",
    "from_hf",
    "to_hf",
    "to_hf_config",
]
