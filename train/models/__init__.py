"""Models: the masked autoencoder and the kinds of token that it reads."""

from .hf import export_hf, from_hf, to_hf, to_hf_config
from .masked_autoencoder import AutoencoderConfig, MaskedAutoencoder, Tokens
from .mesh_network import MeshNetwork, MeshNetworkConfig
from .spectrogram_tokens import SpectrogramTokens, SpectrogramTokensConfig
from .video_tokens import VideoTokens, VideoTokensConfig

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
