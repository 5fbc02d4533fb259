"""The quantiser of a finished run inside another model, where it does not learn.

Its weights belong to the model: they are in every checkpoint and in model.safetensors. So a resumed run has the ids
that it began with, whatever has become of the file, and a trained model needs no other file.

    self.vq = FrozenQuantiser(config.quantiser, config.vq)
    ids = self.vq.ids(batch.image)       # int64 (B, h, w); of a clip (B, T, h, w)
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from maskstream.train.core.export import load_model

from .quantiser import Quantiser, QuantiserConfig


class FrozenQuantiser(nn.Module):
    """A quantiser whose weights come from a run.

    config: its sizes. path: the model.safetensors of a run of `vq-tiny` or the like, which is read once, when a model
    is made; None keeps the initial weights, a random quantiser (as in BEST-RQ, Chiu et al., 2022). A model whose
    weights are then loaded from a file of its own needs no `path` any more.
    """

    loaded: Tensor

    def __init__(self, config: QuantiserConfig, path: str | None) -> None:
        super().__init__()
        self.config = config
        self.quantiser = Quantiser(config).requires_grad_(False)
        self.register_buffer("loaded", torch.tensor(path is None))
        self._missing = "" if path is None else self._read(Path(path))

    def ids(self, pixels: Tensor) -> Tensor:
        """The ids of the cells of pixels uint8 (B, [T,] H, W, 3): int64 (B, [T,] h, w), from 0 to codes - 1.

        ValueError if the weights are missing or did not fit.
        """
        self._check()
        with torch.no_grad():
            return self.quantiser.ids(pixels)

    def latents(self, pixels: Tensor) -> Tensor:
        """What the quantiser would round, float32 (B * T, C, h, w). ValueError as `ids`."""
        self._check()
        with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
            return self.quantiser.latents(pixels)

    def rounded(self, pixels: Tensor) -> Tensor:
        """The latents of the ids, float32 (B * T, C, h, w), of a few levels each. ValueError as `ids`."""
        return cast(Tensor, self.quantiser.rounding(self.latents(pixels)))

    def decode(self, ids: Tensor) -> Tensor:
        """The pixels uint8 (B, [T,] H, W, 3) of ids int64 (B, [T,] h, w)."""
        with torch.no_grad():
            return self.quantiser.decode(ids)

    def drawn(self, latents: Tensor) -> Tensor:
        """The pixels uint8 (n, H, W, 3) of latents float32 (n, C, h, w), rounded or not."""
        with torch.no_grad(), torch.autocast(latents.device.type, enabled=False):
            return self.quantiser.pixels(self.quantiser.drawn(latents))

    def _check(self) -> None:
        if self._missing:
            if not self.loaded:
                raise ValueError(self._missing)
            self._missing = ""

    def _read(self, path: Path) -> str:
        """Takes the weights of a file. Returns why that was not possible, for the first use of the quantiser."""
        if not path.is_file():
            return (
                f"the quantiser {path} is missing; train one (maskstream train vq-tiny) and set model.vq to its "
                "model.safetensors"
            )
        if self.loaded.is_meta:
            return ""
        model = load_model(path)
        trained = getattr(model, "quantiser", None)
        if not isinstance(trained, Quantiser) or trained.config != self.config:
            found = trained.config if isinstance(trained, Quantiser) else type(model).__name__
            return f"the quantiser {path} is {found}, the model wants {self.config}; set model.quantiser to its sizes"
        self.quantiser.load_state_dict(trained.state_dict())
        self.loaded.fill_(True)
        return ""
