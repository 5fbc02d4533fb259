"""Models, one file each. A config builds its model on the token grids of its data."""

from .audiovisual_diffusion import AudioVisualDiffusionConfig
from .dense_unet import DenseUNetConfig
from .distilled_autoencoder import DistilledAutoencoderConfig
from .hf import export_hf, from_hf, to_hf, to_hf_config
from .masked_autoencoder import AutoencoderConfig, MaskedAutoencoder
from .mesh_network import MeshNetworkConfig
from .point_autoencoder import PointAutoencoderConfig
from .siamese import SiameseConfig
from .spectrogram_autoencoder import SpectrogramAutoencoderConfig
from .video_autoencoder import VideoAutoencoderConfig
from .voxel_diffusion import VoxelDiffusionConfig
from .weights_in import load_hf, load_pth

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
