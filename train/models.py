"""Configs of models by name, and conversions of weights. A config builds its model on the token grids of its data."""

from .nn.foreign import export_hf, from_hf, load_hf, load_pth, to_hf, to_hf_config
from .nn.masked_autoencoder import (
    AutoencoderConfig,
    MaskedAutoencoder,
    VideoAutoencoderConfig,
)
from .papers.audiomae.model import SpectrogramAutoencoderConfig
from .papers.avsiam.model import SiameseConfig
from .papers.ca_dense_unet.model import DenseUNetConfig
from .papers.diffmavil.model import AudioVisualDiffusionConfig
from .papers.dmae.model import DistilledAutoencoderConfig
from .papers.fastdit3d.model import VoxelDiffusionConfig
from .papers.meshmask.model import MeshNetworkConfig
from .papers.pointmae.model import PointAutoencoderConfig

__all__ = [
    "AudioVisualDiffusionConfig",
    "AutoencoderConfig",
    "DenseUNetConfig",
    "DistilledAutoencoderConfig",
    "MaskedAutoencoder",
    "MeshNetworkConfig",
    "PointAutoencoderConfig",
    "SiameseConfig",
    "SpectrogramAutoencoderConfig",
    "VideoAutoencoderConfig",
    "VoxelDiffusionConfig",
    "export_hf",
    "from_hf",
    "load_hf",
    "load_pth",
    "to_hf",
    "to_hf_config",
]
