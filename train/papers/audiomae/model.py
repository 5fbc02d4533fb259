"""Audio-MAE (Huang et al., 2022): the masked autoencoder of train/nn/masked_autoencoder.py, of spectrogram patches."""

from dataclasses import dataclass

from maskstream.pipelines.modalities.audio.batch import AudioBatch
from maskstream.train.core.model import Grids
from maskstream.train.nn.masked_autoencoder import AutoencoderConfig
from maskstream.train.nn.media_tokens import SpectrogramTokens, TokenKind


@dataclass(frozen=True, kw_only=True, slots=True)
class SpectrogramAutoencoderConfig(AutoencoderConfig[AudioBatch]):
    """The sizes of a masked autoencoder of spectrogram patches."""

    def tokens(self, grids: Grids) -> TokenKind[AudioBatch]:
        """Return the patches on the grid "audio"."""
        return SpectrogramTokens(grids["audio"])
